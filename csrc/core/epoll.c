/* The type Epoll: made, closed, and the table of its methods, which are in epoll_*.c by theme. */
#include "core/epoll.h"

#include "base/convert.h"
#include "base/errors.h"
#include "base/fdinfo.h"
#include "core/epoll_docs.h"
#include "core/epoll_methods.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <structmember.h>

PyObject *
epoll_raise_closed(const Epoll *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
        return NULL;
    }
    return os_error(EBADF, "epoll fd %d was closed through another object",
                    instance_public_fd(self->instance));
}

static PyObject *
epoll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sizehint", "flags", "always_ready", NULL};
    PyObject *given[2] = {NULL, NULL};
    int sizehint = -1, flags = 0, always_ready = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO$p:epoll", names, &given[0], &given[1],
                                     &always_ready) ||
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
    instance->always_ready = always_ready;
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
            instance->fds.epfd = -1; /* the caller's again */
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

static int
epoll_bool(Epoll *Py_UNUSED(self))
{
    return 1;
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
