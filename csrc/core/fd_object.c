#include "core/fd_object.h"

#include "base/errors.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

PyObject *
fd_object_new(PyTypeObject *type, int fd, const char *kind, const char *file)
{
    FdObject *self = (FdObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    self->fd = fd;
    self->kind = kind;
    self->file = file;
    return (PyObject *)self;
}

void
fd_object_dealloc(FdObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->fd >= 0) {
        int fd = self->fd;
        Py_BEGIN_ALLOW_THREADS
        close(fd); /* takes the lock of each epoll that watches it */
        Py_END_ALLOW_THREADS
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *
fd_object_raise_closed(const FdObject *self)
{
    PyErr_Format(PyExc_ValueError, "I/O operation on closed %s", self->kind);
    return NULL;
}

static int
read_fd(FdObject *self)
{
    guard_lock(&self->guard);
    int fd = self->fd;
    guard_unlock(&self->guard);
    return fd;
}

int
fd_object_release(FdObject *self)
{
    guard_lock(&self->guard);
    int fd = self->fd;
    self->fd = -1;
    guard_unlock(&self->guard);
    return fd;
}

const char fd_object_fileno_doc[] = PyDoc_STR("fileno($self, /)\n--\n\n"
                                              "Return the fd. Raises ValueError if the object is closed.");

PyObject *
fd_object_fileno(FdObject *self, PyObject *Py_UNUSED(ignored))
{
    int fd = read_fd(self);
    return fd >= 0 ? PyLong_FromLong(fd) : fd_object_raise_closed(self);
}

const char fd_object_close_doc[] = PyDoc_STR(
    "close($self, /)\n--\n\n"
    "Close the fd; a second close does nothing. Unregister the object first: see epoll(7), question 6.\n\n"
    "Raises OSError: EBADF if the fd has been closed elsewhere.");

PyObject *
fd_object_close(FdObject *self, PyObject *Py_UNUSED(ignored))
{
    int error = 0;
    int fd = fd_object_release(self);
    if (fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        error = close(fd) < 0 ? errno : 0; /* takes the lock of each epoll that watches it */
        Py_END_ALLOW_THREADS
    }
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "close %s %d", self->file, fd);
}

const char fd_object_closed_doc[] = "True once close() has been called.";

PyObject *
fd_object_closed(FdObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(read_fd(self) < 0);
}

const char fd_object_enter_doc[] = PyDoc_STR("__enter__($self, /)\n--\n\n"
                                             "Return the object itself. Raises ValueError if it is closed.");

PyObject *
fd_object_enter(FdObject *self, PyObject *Py_UNUSED(ignored))
{
    return read_fd(self) >= 0 ? Py_NewRef(self) : fd_object_raise_closed(self);
}

const char fd_object_exit_doc[] = PyDoc_STR("__exit__($self, kind, error, trace, /)\n--\n\n"
                                            "Close the object.");

PyObject *
fd_object_exit(FdObject *self, PyObject *Py_UNUSED(args))
{
    return fd_object_close(self, NULL);
}

PyObject *
fd_object_text(FdObject *self, const char *more)
{
    int fd = read_fd(self);
    const char *name = Py_TYPE(self)->tp_name;
    return fd >= 0 ? PyUnicode_FromFormat("<%s fd=%d%s>", name, fd, more)
                   : PyUnicode_FromFormat("<%s closed%s>", name, more);
}

PyObject *
fd_object_repr(FdObject *self)
{
    return fd_object_text(self, "");
}
