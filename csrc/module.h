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
    PyTypeObject *selector_type;
    PyTypeObject *plain_epoll; /* the package's Epoll: its methods are the core's; NULL until it is made */
    PyTypeObject *key_type;    /* selectors.SelectorKey; NULL until the package gives it */
    PyObject *event_class;     /* the package's Event; NULL: events are plain ints */
    PyObject *events;          /* dict: mask -> the member that a wait yields for it */
    PyObject *instances;       /* dict: fd -> weak reference to the Instance that has it, for fromfd */
    int ready_fd;              /* an eventfd that is always ready: what wakes the waiters */
} ModuleState;

extern PyType_Spec epoll_spec;     /* epoll.c */
extern PyType_Spec instance_spec;  /* instance.c */
extern PyType_Spec ready_spec;     /* ready.c */
extern PyType_Spec buffer_spec;    /* buffer.c */
extern PyType_Spec waker_spec;     /* waker.c */
extern PyType_Spec selector_spec;  /* selector.c */
extern PyMethodDef raw_methods[];  /* raw.c */
extern PyMethodDef kcmp_methods[]; /* kcmp.c */
extern PyMethodDef epoll_methods[];
extern PyMethodDef selector_methods[];

/* Give a subclass of Epoll or Selector method objects of its own: own.c. A new reference to it. */
PyObject *own_methods(PyObject *module, PyObject *type);

/* The fd number, an int, of a file object that is among `keys`, also of one that is closed by now: key.c. */
PyObject *key_number(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* The state of the module that defined `type` or the base of it that is ours. Borrowed. */
ModuleState *module_state_of(PyTypeObject *type);

#endif
