/* The methods of Epoll that change registrations or look at them. */
#include "base/convert.h"
#include "core/ctl.h"
#include "core/epoll_methods.h"
#include "core/event_member.h"

#include <limits.h>

PyObject *
epoll_register(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "register", 1, 3, {"fd", "eventmask", "data"}
    };
    PyObject *given[ARGUMENTS];
    uint32_t mask = EPOLLIN | EPOLLPRI | EPOLLOUT;
    int fd;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        convert_fd_for(signature.function, given[0], &fd) < 0 ||
        (given[1] != NULL && convert_eventmask(given[1], &mask) < 0)) {
        return NULL;
    }
    if (self->closed) {
        return epoll_raise_closed(self);
    }
    PyObject *data = given[2] != NULL              ? Py_NewRef(given[2])
                     : PyLong_CheckExact(given[0]) ? Py_NewRef(given[0])
                                                   : PyLong_FromLong(fd);
    if (data == NULL) {
        return NULL;
    }
    int status = ctl_register(self->instance, fd, mask, data);
    Py_DECREF(data);
    return epoll_result(self, status);
}

PyObject *
epoll_modify(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "modify", 2, 3, {"fd", "eventmask", "data"}
    };
    PyObject *given[ARGUMENTS];
    uint32_t mask;
    int fd;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        convert_fd_for(signature.function, given[0], &fd) < 0 || convert_eventmask(given[1], &mask) < 0) {
        return NULL;
    }
    return self->closed ? epoll_raise_closed(self)
                        : epoll_result(self, ctl_modify(self->instance, fd, mask, given[2]));
}

/* unregister and rearm. */
static PyObject *
on_registration(Epoll *self, const Signature *signature, int (*action)(Instance *, int),
                PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *given[ARGUMENTS];
    int fd;
    if (convert_arguments(signature, args, nargs, kwnames, given) < 0 ||
        convert_fd_for(signature->function, given[0], &fd) < 0) {
        return NULL;
    }
    return self->closed ? epoll_raise_closed(self) : epoll_result(self, action(self->instance, fd));
}

PyObject *
epoll_unregister(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"unregister", 1, 1, {"fd"}};
    return on_registration(self, &signature, ctl_unregister, args, nargs, kwnames);
}

PyObject *
epoll_rearm(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"rearm", 1, 1, {"fd"}};
    return on_registration(self, &signature, ctl_rearm, args, nargs, kwnames);
}

Py_ssize_t
epoll_length(Epoll *self)
{
    STATE_LOCK(self->instance);
    int count = self->instance->list.count;
    STATE_UNLOCK(self->instance);
    return count;
}

int
epoll_contains(Epoll *self, PyObject *object)
{
    int fd;
    if (convert_fd_for("__contains__", object, &fd) < 0) {
        return -1;
    }
    STATE_LOCK(self->instance);
    bool found = interest_get(&self->instance->list, fd) != NULL;
    STATE_UNLOCK(self->instance);
    return found;
}

PyObject *
epoll_fds(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    for (int fd = 0; list != NULL; fd++) {
        STATE_LOCK(self->instance);
        fd = interest_next(&self->instance->list, fd);
        STATE_UNLOCK(self->instance);
        if (fd < 0) {
            break;
        }
        PyObject *number = PyLong_FromLong(fd);
        if (number == NULL || PyList_Append(list, number) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(number);
    }
    return list;
}

/* Convert a key of the mapping to an fd: 1; 0 for a key that no mapping of fds has, such as a string or an
 * int below 0; -1 with an exception for an object with fileno() that gives no fd. */
static int
convert_key(PyObject *object, int *fd)
{
    if (PyLong_Check(object)) {
        int overflow;
        long value = PyLong_AsLongAndOverflow(object, &overflow);
        *fd = (int)value;
        return overflow == 0 && value >= 0 && value <= INT_MAX;
    }
    PyObject *method = PyObject_GetAttrString(object, "fileno");
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(method);
    return method == NULL || convert_fd_for("registrations", object, fd) < 0 ? -1 : 1;
}

PyObject *
epoll_registration(Epoll *self, PyObject *object)
{
    int fd;
    uint32_t mask = 0;
    PyObject *data = NULL;
    int status = convert_key(object, &fd);
    if (status <= 0) {
        return status < 0 ? NULL : Py_NewRef(Py_None);
    }
    STATE_LOCK(self->instance);
    Registration *present = interest_get(&self->instance->list, fd);
    if (present != NULL) {
        mask = present->mask;
        data = Py_NewRef(present->data);
    }
    STATE_UNLOCK(self->instance);
    if (data == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *events = event_member(self->instance->module, mask);
    if (events == NULL) {
        Py_DECREF(data);
        return NULL;
    }
    return Py_BuildValue("(NN)", events, data);
}
