/* An object that owns one fd: what Waker, Timer, Signals and Child share. In C, because between reading
 * the fd and using it no other Python code may run: close() in a signal handler or another thread would
 * give the fd away, and the system call would reach an unrelated file. No system call on the fd makes a
 * caller wait, so all of it happens with the GIL held (on a free-threaded build, a mutex). */
#ifndef PYEPOLL_FD_OBJECT_H
#define PYEPOLL_FD_OBJECT_H

#include "base/compat.h"

#include "base/mutex.h"

/* The types begin with one, and are final. */
typedef struct {
    PyObject_HEAD
    int fd; /* -1 once closed */
    Guard guard;
    const char *kind; /* for texts: "waker" */
    const char *file; /* "eventfd" */
} FdObject;

/* A new object, which takes over the fd; closes it where that fails. NULL with an exception. */
PyObject *fd_object_new(PyTypeObject *type, int fd, const char *kind, const char *file);

/* The destructor of a type without cycles. */
void fd_object_dealloc(FdObject *self);

/* Raise the ValueError of a closed object. NULL. */
PyObject *fd_object_raise_closed(const FdObject *self);

/* Take the fd out of the object: no other call has it from here on. -1: it is closed already. */
int fd_object_release(FdObject *self);

/* The methods. */
PyObject *fd_object_fileno(FdObject *self, PyObject *ignored);
PyObject *fd_object_close(FdObject *self, PyObject *ignored);
PyObject *fd_object_enter(FdObject *self, PyObject *ignored);
PyObject *fd_object_exit(FdObject *self, PyObject *args);

/* "<pyepoll.Waker fd=3>" or "<pyepoll.Waker closed>", with `more` before the end. */
PyObject *fd_object_text(FdObject *self, const char *more);
PyObject *fd_object_repr(FdObject *self);

PyObject *fd_object_closed(FdObject *self, void *closure);

#define FD_OBJECT_CLOSED {"closed", (getter)fd_object_closed, NULL, fd_object_closed_doc, NULL}

extern const char fd_object_fileno_doc[];
extern const char fd_object_close_doc[];
extern const char fd_object_enter_doc[];
extern const char fd_object_exit_doc[];
extern const char fd_object_closed_doc[];

#endif
