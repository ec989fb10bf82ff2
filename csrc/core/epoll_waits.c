/* The methods of Epoll that wait. */
#include "base/convert.h"
#include "core/epoll_methods.h"
#include "core/ready.h"

#include <limits.h>

/* Convert the arguments of poll or wait, and wait; `result` makes the value to return. */
static PyObject *
poll_or_wait(Epoll *self, const Signature *signature, PyObject *(*result)(Instance *, const WaitRequest *),
             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *given[ARGUMENTS] = {NULL};
    WaitRequest wait;
    wait.timeout = NO_TIMEOUT;
    wait.deadline = 0;
    wait.maxevents = INT_MAX;
    wait.masked = false;
    if (self->closed) {
        return epoll_raise_closed(self);
    }
    if (convert_arguments(signature, args, nargs, kwnames, given) < 0 ||
        (given[0] != NULL && convert_timeout(given[0], &wait.timeout) < 0) ||
        (given[1] != NULL && convert_maxevents(given[1], &wait.maxevents) < 0) ||
        (given[2] != NULL && convert_sigmask(given[2], &wait.set, &wait.masked) < 0)) {
        return NULL;
    }
    if (wait.timeout > 0) {
        wait.deadline = wait_deadline(wait.timeout);
    }
    PyObject *events = result(self->instance, &wait);
    return events != NULL || PyErr_Occurred() ? events : epoll_raise_closed(self);
}

PyObject *
epoll_poll(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "poll", 0, 2, {"timeout", "maxevents"}
    };
    return poll_or_wait(self, &signature, ready_list, args, nargs, kwnames);
}

PyObject *
epoll_wait_method(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "wait", 0, 3, {"timeout", "maxevents", "sigmask"}
    };
    return poll_or_wait(self, &signature, ready_batch, args, nargs, kwnames);
}

PyObject *
epoll_iter(Epoll *self)
{
    return self->closed ? epoll_raise_closed(self) : ready_endless(self->instance);
}
