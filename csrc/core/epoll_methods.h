/* The object of the type Epoll, and its methods by theme. */
#ifndef PYEPOLL_EPOLL_METHODS_H
#define PYEPOLL_EPOLL_METHODS_H

#include "core/instance.h"

typedef struct {
    PyObject_HEAD
    Instance *instance;
    PyObject *weakrefs;
    atomic_bool closed;
} Epoll;

/* Raise the error of a call on a closed object; or, where another handle has closed the instance, of one on a
 * closed fd. NULL. */
PyObject *epoll_raise_closed(const Epoll *self);

/* None for 0; else the error that the status of a call on the instance stands for. */
static inline PyObject *
epoll_result(const Epoll *self, int status)
{
    if (status == 0) {
        Py_RETURN_NONE;
    }
    return status == IS_CLOSED ? epoll_raise_closed(self) : NULL;
}

/* epoll_registrations.c */
PyObject *epoll_register(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *epoll_modify(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *epoll_unregister(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *epoll_rearm(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
Py_ssize_t epoll_length(Epoll *self);
int epoll_contains(Epoll *self, PyObject *object);
PyObject *epoll_fds(Epoll *self, PyObject *ignored);
PyObject *epoll_registration(Epoll *self, PyObject *object);

/* epoll_waits.c */
PyObject *epoll_poll(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *epoll_wait_method(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *epoll_iter(Epoll *self);

/* epoll_fds.c */
PyObject *epoll_fileno(Epoll *self, PyObject *ignored);
PyObject *epoll_public_fd(Epoll *self, PyObject *ignored);
PyObject *epoll_instance_fd(Epoll *self, PyObject *ignored);

/* epoll_kernel.c */
PyObject *epoll_stats(Epoll *self, PyObject *ignored);
PyObject *epoll_get_params(Epoll *self, PyObject *ignored);
PyObject *epoll_set_params(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

#endif
