/* The Epoll type: parse, delegate, return. */
#include "epoll.h"
#include "base/fdinfo.h"
#include "convert.h"
#include "core/ctl.h"
#include "core/front.h"
#include "core/repair/repair.h"
#include "epoll_docs.h"
#include "errors.h"
#include "params.h"
#include "ready.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    Instance *instance;
    PyObject *weakrefs;
    atomic_bool closed;
} Epoll;

/* The error of a call on a closed object; or, where another handle has closed the instance, of one
 * on a closed fd. NULL. */
static PyObject *
refuse_closed(const Epoll *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
        return NULL;
    }
    return os_error(EBADF, "epoll fd %d was closed through another object",
                    instance_public_fd(self->instance));
}

/* None for 0; else the error that the status of a call on the instance stands for. */
static PyObject *
none_or_error(const Epoll *self, int status)
{
    if (status == 0) {
        Py_RETURN_NONE;
    }
    return status == IS_CLOSED ? refuse_closed(self) : NULL;
}

static PyObject *
epoll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sizehint", "flags", NULL};
    PyObject *given[2] = {NULL, NULL};
    int sizehint = -1, flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:epoll", names, &given[0], &given[1]) ||
        (given[0] != NULL && convert_int(given[0], &sizehint) < 0) ||
        (given[1] != NULL && convert_int(given[1], &flags) < 0)) {
        return NULL;
    }
    if (sizehint != -1 && sizehint <= 0) {
        PyErr_SetString(PyExc_ValueError, "sizehint must be positive or -1");
        return NULL;
    }
    if ((flags & ~EPOLL_CLOEXEC) != 0) {
        return os_error(EINVAL, "epoll flags 0x%x: only EPOLL_CLOEXEC is known", (unsigned)flags);
    }
    ModuleState *module = module_state_of(type);
    if (module == NULL) {
        return NULL;
    }
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        return os_error(errno, "epoll_create1(CLOEXEC)");
    }
    Instance *instance = instance_new(module, epfd, false);
    Epoll *self = instance != NULL ? (Epoll *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        Py_XDECREF(instance);
        return NULL;
    }
    self->instance = instance;
    return (PyObject *)self;
}

static PyObject *
epoll_fromfd(PyTypeObject *type, PyObject *object)
{
    int fd;
    ModuleState *module = module_state_of(type);
    if (module == NULL || convert_int(object, &fd) < 0) {
        return NULL;
    }
    if (fcntl(fd, F_GETFD) < 0) {
        return os_error(errno, "fromfd(%d)", fd);
    }
    int error = fdinfo_is_epoll(fd);
    if (error != 0) {
        return os_error(error, "fromfd(%d): %s", fd, error == EINVAL ? "not an epoll" : "/proc/self/fd");
    }
    bool made = false;
    Instance *instance = instance_find(module, fd);
    if (instance == NULL && !PyErr_Occurred()) {
        instance = instance_new(module, fd, true);
        made = true;
    }
    Epoll *self = instance != NULL ? (Epoll *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        if (instance != NULL && made) {
            instance->epfd = -1; /* the caller's again */
        }
        Py_XDECREF(instance);
        return NULL;
    }
    /* From here on gc.get_objects() finds it: it is complete before any other code runs. */
    self->instance = instance;
    return (PyObject *)self;
}

static int
epoll_traverse(Epoll *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->instance);
    return 0;
}

static void
epoll_dealloc(Epoll *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    Py_XDECREF(self->instance);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
epoll_close(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed) {
        Py_RETURN_NONE;
    }
    int fd = instance_public_fd(self->instance);
    self->closed = true;
    int error = instance_close(self->instance);
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "close epoll fd %d", fd);
}

Instance *
epoll_instance(PyObject *object)
{
    return ((Epoll *)object)->instance;
}

static PyObject *
epoll_fileno(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed) {
        return refuse_closed(self);
    }
    Instance *instance = self->instance;
    int error = 0;
    int status = repair_enter(instance);
    if (status != 0) {
        return status == IS_CLOSED ? refuse_closed(self) : NULL;
    }
    if (instance->front_fd < 0 && !instance->foreign) {
        error = front_open(instance);
    }
    int fd = instance_public_fd(instance);
    instance_leave(instance);
    const char *cause = error == ELOOP
                            ? " (epolls nest at most 5 deep, and an Epoll in an Epoll counts twice)"
                            : "";
    return error == 0 ? PyLong_FromLong(fd) : os_error(error, "fileno() of epoll fd %d%s", fd, cause);
}

/* The fd in texts: what fileno() returns, or would; nothing is made for it. */
static PyObject *
epoll_public_fd(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    int status = self->closed ? IS_CLOSED : instance_enter(self->instance);
    if (status == IS_CLOSED) {
        return refuse_closed(self);
    }
    int fd = instance_public_fd(self->instance);
    if (status == 0) {
        instance_leave(self->instance);
    }
    return PyLong_FromLong(fd);
}

/* The kernel instance's own fd. */
static PyObject *
epoll_instance_fd(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    int status = self->closed ? IS_CLOSED : repair_enter(self->instance);
    if (status != 0) {
        return none_or_error(self, status);
    }
    int epfd = self->instance->epfd;
    instance_leave(self->instance);
    return PyLong_FromLong(epfd);
}

/* Enter, with the ctl lock: until end_call(), the kernel instance keeps its fd. 0, or -1 with an exception.
 */
static int
begin_call(const Epoll *self)
{
    int status = self->closed ? IS_CLOSED : repair_enter(self->instance);
    if (status == 0) {
        mutex_lock(&self->instance->ctl);
    }
    else if (status == IS_CLOSED) {
        refuse_closed(self);
    }
    return status == 0 ? 0 : -1;
}

static void
end_call(const Epoll *self)
{
    mutex_unlock(&self->instance->ctl);
    instance_leave(self->instance);
}

static PyObject *
epoll_get_params(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    struct epoll_params params;
    if (begin_call(self) < 0) {
        return NULL;
    }
    int epfd = self->instance->epfd;
    int error = params_read(epfd, &params);
    end_call(self);
    return error == 0 ? params_build(&params) : params_error(error, "EPIOCGPARAMS", epfd, &params);
}

static PyObject *
epoll_set_params(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "_set_params", 3, 3, {"busy_poll_usecs", "busy_poll_budget", "prefer_busy_poll"}
    };
    PyObject *given[ARGUMENTS];
    struct epoll_params params;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        params_convert(given, &params) < 0) {
        return NULL;
    }
    if (begin_call(self) < 0) {
        return NULL;
    }
    int epfd = self->instance->epfd;
    int error = params_write(epfd, &params);
    end_call(self);
    return error == 0 ? Py_NewRef(Py_None) : params_error(error, "EPIOCSPARAMS", epfd, &params);
}

static PyObject *
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
        return refuse_closed(self);
    }
    PyObject *data = given[2] != NULL              ? Py_NewRef(given[2])
                     : PyLong_CheckExact(given[0]) ? Py_NewRef(given[0])
                                                   : PyLong_FromLong(fd);
    if (data == NULL) {
        return NULL;
    }
    int status = ctl_register(self->instance, fd, mask, data);
    Py_DECREF(data);
    return none_or_error(self, status);
}

static PyObject *
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
    return self->closed ? refuse_closed(self)
                        : none_or_error(self, ctl_modify(self->instance, fd, mask, given[2]));
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
    return self->closed ? refuse_closed(self) : none_or_error(self, action(self->instance, fd));
}

static PyObject *
epoll_unregister(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"unregister", 1, 1, {"fd"}};
    return on_registration(self, &signature, ctl_unregister, args, nargs, kwnames);
}

static PyObject *
epoll_rearm(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"rearm", 1, 1, {"fd"}};
    return on_registration(self, &signature, ctl_rearm, args, nargs, kwnames);
}

/* Convert the arguments of poll or wait, and wait; `result` makes what is returned. */
static PyObject *
poll_or_wait(Epoll *self, const Signature *signature, PyObject *(*result)(Instance *, const WaitFor *),
             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *given[ARGUMENTS] = {NULL};
    WaitFor wait;
    wait.timeout = FOREVER;
    wait.deadline = 0;
    wait.maxevents = INT_MAX;
    wait.masked = false;
    if (self->closed) {
        return refuse_closed(self);
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
    return events != NULL || PyErr_Occurred() ? events : refuse_closed(self);
}

static PyObject *
epoll_poll(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "poll", 0, 2, {"timeout", "maxevents"}
    };
    return poll_or_wait(self, &signature, ready_list, args, nargs, kwnames);
}

static PyObject *
epoll_wait_method(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "wait", 0, 3, {"timeout", "maxevents", "sigmask"}
    };
    return poll_or_wait(self, &signature, ready_batch, args, nargs, kwnames);
}

static PyObject *
epoll_iter(Epoll *self)
{
    return self->closed ? refuse_closed(self) : ready_endless(self->instance);
}

static PyObject *
epoll_stats(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    Instance *instance = self->instance;
    STATE_LOCK(instance);
    unsigned long long waits = instance->waits, events = instance->events, stale = instance->stale_events;
    unsigned long long rebuilds = instance->rebuilds, failed = instance->failed_rebuilds,
                       lost = instance->lost;
    STATE_UNLOCK(instance);
    return Py_BuildValue("(KKKKKK)", waits, events, stale, rebuilds, failed, lost);
}

static Py_ssize_t
epoll_length(Epoll *self)
{
    STATE_LOCK(self->instance);
    int count = self->instance->list.count;
    STATE_UNLOCK(self->instance);
    return count;
}

static int
epoll_bool(Epoll *Py_UNUSED(self))
{
    return 1;
}

static int
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

static PyObject *
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

/* The fd that a key of the mapping stands for: 1; 0 for one that a mapping does not have, such as a string or
 * an int below 0; -1 with an exception for an object with fileno() that gives no fd. */
static int
convert_key(PyObject *object, int *fd)
{
    if (PyLong_Check(object)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(object, &overflow);
        *fd = (int)number;
        return overflow == 0 && number >= 0 && number <= INT_MAX;
    }
    PyObject *method = PyObject_GetAttrString(object, "fileno");
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(method);
    return method == NULL || convert_fd_for("registrations", object, fd) < 0 ? -1 : 1;
}

static PyObject *
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
    PyObject *events = ready_event(self->instance->module, mask);
    if (events == NULL) {
        Py_DECREF(data);
        return NULL;
    }
    return Py_BuildValue("(NN)", events, data);
}

static PyObject *
epoll_closed(Epoll *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

PyMethodDef epoll_methods[] = {
    {"fromfd", (PyCFunction)epoll_fromfd, METH_O | METH_CLASS, fromfd_doc},
    {"close", (PyCFunction)epoll_close, METH_NOARGS, close_doc},
    {"fileno", (PyCFunction)epoll_fileno, METH_NOARGS, fileno_doc},
    {"register", FAST(epoll_register), register_doc},
    {"modify", FAST(epoll_modify), modify_doc},
    {"unregister", FAST(epoll_unregister), unregister_doc},
    {"rearm", FAST(epoll_rearm), rearm_doc},
    {"poll", FAST(epoll_poll), poll_doc},
    {"wait", FAST(epoll_wait_method), wait_doc},
    {"_stats", (PyCFunction)epoll_stats, METH_NOARGS, stats_doc},
    {"_public_fd", (PyCFunction)epoll_public_fd, METH_NOARGS, public_fd_doc},
    {"_instance_fd", (PyCFunction)epoll_instance_fd, METH_NOARGS, instance_fd_doc},
    {"_fds", (PyCFunction)epoll_fds, METH_NOARGS, fds_doc},
    {"_get_params", (PyCFunction)epoll_get_params, METH_NOARGS, get_params_doc},
    {"_set_params", FAST(epoll_set_params), set_params_doc},
    {"_registration", (PyCFunction)epoll_registration, METH_O, registration_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Epoll[T]: T is the type of the data."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef epoll_getset[] = {
    {"closed", (getter)epoll_closed, NULL, "True once close() has been called.", NULL},
    {NULL,     NULL,                 NULL, NULL,                                 NULL},
};

static PyMemberDef epoll_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Epoll, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot epoll_slots[] = {
    {Py_tp_doc,      (void *)epoll_doc},
    {Py_tp_new,      epoll_new        },
    {Py_tp_dealloc,  epoll_dealloc    },
    {Py_tp_traverse, epoll_traverse   },
    {Py_tp_iter,     epoll_iter       },
    {Py_tp_methods,  epoll_methods    },
    {Py_tp_getset,   epoll_getset     },
    {Py_tp_members,  epoll_members    },
    {Py_nb_bool,     epoll_bool       },
    {Py_sq_length,   epoll_length     },
    {Py_sq_contains, epoll_contains   },
    {0,              NULL             },
};

PyType_Spec epoll_spec = {
    .name = "pyepoll._epoll.Epoll",
    .basicsize = sizeof(Epoll),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = epoll_slots,
};
