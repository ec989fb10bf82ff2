/* What one interpreter's copy of the module holds, and the types it is made of. */
#ifndef PYEPOLL_MODULE_H
#define PYEPOLL_MODULE_H

#include "compat.h"

typedef struct {
    PyTypeObject *epoll_type;
    PyTypeObject *instance_type;
    PyTypeObject *ready_type;
    PyTypeObject *buffer_type;
    PyTypeObject *waker_type;
    PyObject *event_class; /* the package's Event; NULL: events are plain ints */
    PyObject *events;      /* dict: mask -> the member that a wait yields for it */
    PyObject *instances;   /* dict: fd -> weak reference to the Instance that has it, for fromfd */
    int ready_fd;          /* an eventfd that is always ready: what wakes the waiters */
} ModuleState;

extern PyType_Spec epoll_spec;    /* epoll.c */
extern PyType_Spec instance_spec; /* instance.c */
extern PyType_Spec ready_spec;    /* ready.c */
extern PyType_Spec buffer_spec;   /* buffer.c */
extern PyType_Spec waker_spec;    /* waker.c */
extern PyMethodDef raw_methods[]; /* raw.c */

/* Give a subclass of Epoll method objects of its own: epoll.c. A new reference to it. */
PyObject *epoll_own_methods(PyObject *module, PyObject *type);

/* The state of the module that defined `type` or the base of it that is ours. Borrowed. */
ModuleState *module_state_of(PyTypeObject *type);

#endif
