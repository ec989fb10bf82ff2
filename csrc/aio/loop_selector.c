/* The type LoopSelector: selectors.BaseSelector on the table. */
#include "aio/fds.h"

#include "aio/fdchange.h"
#include "aio/fdkey.h"
#include "aio/loop_selector_docs.h"
#include "base/convert.h"
#include "core/epoll.h"

#include <limits.h>
#include <stddef.h>
#include <structmember.h>

static PyObject *
loop_selector_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    ModuleState *module = module_state_of(type);
    LoopSelector *self = module != NULL ? (LoopSelector *)type->tp_alloc(type, 0) : NULL;
    if (self != NULL) {
        self->module = module_hold(module);
        self->epoch = fork_epoch();
    }
    return (PyObject *)self;
}

static PyObject *
use_epoll(LoopSelector *self, PyObject *epoll)
{
    if (!PyObject_TypeCheck(epoll, self->module->types.epoll) || self->epoll != NULL) {
        return PyErr_Format(PyExc_TypeError, "an Epoll is needed, and only once");
    }
    self->epoll = Py_NewRef(epoll);
    self->instance = (Instance *)Py_NewRef(epoll_instance(epoll));
    self->instance->make_events = fds_make_mask;
    Py_RETURN_NONE;
}

static int
loop_selector_traverse(LoopSelector *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->epoll);
    Py_VISIT(self->instance);
    for (int fd = 0; fd < self->table.size; fd++) {
        Py_VISIT(self->table.items[fd]);
    }
    if (self->module != NULL) {
        Py_VISIT(self->module->object);
    }
    return 0;
}

static int
loop_selector_clear(LoopSelector *self)
{
    fdtable_free(self);
    return 0;
}

static void
loop_selector_dealloc(LoopSelector *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ModuleState *module = self->module;
    PyObject_GC_UnTrack(self);
    fdtable_free(self);
    Py_XDECREF(self->epoll);
    Py_XDECREF(self->instance);
    type->tp_free(self);
    Py_DECREF(type);
    module_drop(module);
}

/* EVENT_READ, EVENT_WRITE or both; -1 with ValueError. */
static int
convert_wanted(PyObject *object)
{
    int overflow = 0;
    long events = PyLong_Check(object) ? PyLong_AsLongAndOverflow(object, &overflow) : -1;
    if (overflow != 0 || events <= 0 || events > (EVENT_READ | EVENT_WRITE)) {
        PyErr_Format(PyExc_ValueError, "Invalid events: %R", object);
        return -1;
    }
    return (int)events;
}

static PyObject *
raise_not_registered(PyObject *fileobj)
{
    return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_KeyError, "%R is not registered", fileobj);
}

static void
release_dropped(FdUpdate *update)
{
    Py_CLEAR(update->dropped[READER]);
    Py_CLEAR(update->dropped[WRITER]);
}

/* The arguments of register() and modify(), which stay borrowed. 0, or -1 with an exception. */
static int
parse_update(LoopSelector *self, const Signature *signature, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, FdUpdate *update)
{
    PyObject *given[ARGUMENTS];
    int events;
    if (convert_arguments(signature, args, nargs, kwnames, given) < 0 ||
        (events = convert_wanted(given[1])) < 0) {
        return -1;
    }
    update->fileobj = given[0];
    update->events = (uint8_t)events;
    update->data = given[2] != NULL ? given[2] : Py_None;
    update->fd = fds_fd_of(self, update->fileobj, &update->closed);
    return update->fd < 0 ? -1 : 0;
}

static PyObject *
loop_selector_register(LoopSelector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "register", 2, 3, {"fileobj", "events", "data"}
    };
    FdUpdate update = {0};
    if (parse_update(self, &signature, args, nargs, kwnames, &update) < 0) {
        return NULL;
    }
    int status = fdchange_register(self, &update);
    release_dropped(&update);
    if (status < 0) {
        if (PyErr_ExceptionMatches(PyExc_FileExistsError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_KeyError, "%R (FD %d) is already registered", update.fileobj, update.fd);
        }
        return NULL;
    }
    PyObject *key = fdkey_find(self, update.fd);
    return key != NULL ? key : raise_not_registered(update.fileobj);
}

static PyObject *
loop_selector_modify(LoopSelector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "modify", 2, 3, {"fileobj", "events", "data"}
    };
    FdUpdate update = {0};
    if (parse_update(self, &signature, args, nargs, kwnames, &update) < 0) {
        return NULL;
    }
    FdEntry *entry = fdtable_find(self, update.fd);
    if (entry == NULL) {
        return raise_not_registered(update.fileobj);
    }
    int status = fdchange_watch(self, &update);
    release_dropped(&update);
    PyObject *key = status == 0 ? fdkey_find(self, update.fd) : NULL;
    Py_DECREF(entry);
    return key != NULL || status < 0 ? key : raise_not_registered(update.fileobj);
}

static PyObject *
loop_selector_unregister(LoopSelector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"unregister", 1, 1, {"fileobj"}};
    PyObject *given[ARGUMENTS];
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    FdUpdate update = {.fileobj = given[0], .events = EVENT_READ | EVENT_WRITE};
    update.fd = fds_fd_of(self, update.fileobj, &update.closed);
    if (update.fd < 0) {
        return NULL;
    }
    PyObject *key = fdkey_find(self, update.fd);
    if (key == NULL) {
        return raise_not_registered(update.fileobj);
    }
    if (fdchange_unwatch(self, &update) < 0) {
        Py_CLEAR(key);
    }
    release_dropped(&update);
    return key;
}

static int
timed_wait_for(LoopSelector *self, int64_t timeout, FdsEvents *events)
{
    int64_t start = monotonic_now();
    int status = fds_wait(self, timeout, INT_MAX, events);
    if (timeout != 0) {
        atomic_fetch_add_explicit(&self->selected.idle, monotonic_now() - start, memory_order_relaxed);
    }
    return status;
}

/* Append (key, events) of one event. 0, or -1 with an exception. */
static int
append_key(LoopSelector *self, PyObject *list, FdEntry *entry, uint8_t ready)
{
    PyObject *key = ready != 0 ? fdkey_of(self, entry) : NULL;
    PyObject *pair = key != NULL ? Py_BuildValue("(Oi)", key, (int)ready) : NULL;
    int status = pair != NULL ? PyList_Append(list, pair) : PyErr_Occurred() != NULL ? -1 : 0;
    Py_XDECREF(pair);
    Py_XDECREF(key);
    return status;
}

/* The list of the keys of all events, which are counted. */
static PyObject *
keys_of_events(LoopSelector *self, FdsEvents *events)
{
    PyObject *list = PyList_New(0);
    FdEntry *entry;
    uint8_t ready;
    int64_t count = 0;
    int status = list != NULL ? 1 : -1;
    while (status > 0 && (status = fds_next(self, events, &entry, &ready)) > 0) {
        status = append_key(self, list, entry, ready) == 0 ? 1 : -1;
        Py_XDECREF(entry);
        count++;
    }
    atomic_fetch_add_explicit(&self->selected.events, count, memory_order_relaxed);
    if (status < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
loop_selector_select(LoopSelector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"select", 0, 1, {"timeout"}};
    PyObject *given[ARGUMENTS];
    int64_t timeout = NO_TIMEOUT;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        (given[0] != NULL && convert_selector_timeout(given[0], &timeout) < 0)) {
        return NULL;
    }
    FdsEvents events;
    PyObject *list = timed_wait_for(self, timeout, &events) == 0 ? keys_of_events(self, &events) : NULL;
    fds_end(&events);
    return list;
}

static PyObject *
loop_selector_get(LoopSelector *self, PyObject *fileobj)
{
    bool closed;
    int fd = fds_fd_of(self, fileobj, &closed);
    PyObject *key = fd >= 0 ? fdkey_find(self, fd) : NULL;
    return key != NULL ? key : PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *
loop_selector_fds(LoopSelector *self, PyObject *Py_UNUSED(ignored))
{
    guard_lock(&self->guard);
    int size = self->table.size;
    guard_unlock(&self->guard);
    PyObject *list = PyList_New(0);
    for (int fd = 0; list != NULL && fd < size; fd++) {
        FdEntry *entry = fdtable_find(self, fd);
        PyObject *object = entry != NULL ? PyLong_FromLong(fd) : NULL;
        if (entry != NULL && (object == NULL || PyList_Append(list, object) < 0)) {
            Py_CLEAR(list);
        }
        Py_XDECREF(object);
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *
loop_selector_forget(LoopSelector *self, PyObject *Py_UNUSED(ignored))
{
    fdtable_free(self);
    Py_RETURN_NONE;
}

static PyObject *
loop_selector_get_count(LoopSelector *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(fds_count(self));
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

PyMethodDef loop_selector_methods[] = {
    {"register", FAST(loop_selector_register), register_doc},
    {"modify", FAST(loop_selector_modify), modify_doc},
    {"unregister", FAST(loop_selector_unregister), unregister_doc},
    {"select", FAST(loop_selector_select), select_doc},
    {"_get", (PyCFunction)loop_selector_get, METH_O, get_doc},
    {"_fds", (PyCFunction)loop_selector_fds, METH_NOARGS, fds_doc},
    {"_clear", (PyCFunction)loop_selector_forget, METH_NOARGS, clear_doc},
    {"_use_epoll", (PyCFunction)use_epoll, METH_O, use_epoll_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loop_selector_getset[] = {
    {"_count", (getter)loop_selector_get_count, NULL, "How many fds are registered.", NULL},
    {NULL,     NULL,                            NULL, NULL,                           NULL},
};

static PyMemberDef loop_selector_members[] = {
    {"_selector", T_OBJECT_EX, offsetof(LoopSelector, epoll), READONLY, "The Epoll underneath."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_selector_slots[] = {
    {Py_tp_doc,      (void *)loop_selector_doc},
    {Py_tp_new,      loop_selector_new        },
    {Py_tp_dealloc,  loop_selector_dealloc    },
    {Py_tp_traverse, loop_selector_traverse   },
    {Py_tp_clear,    loop_selector_clear      },
    {Py_tp_methods,  loop_selector_methods    },
    {Py_tp_getset,   loop_selector_getset     },
    {Py_tp_members,  loop_selector_members    },
    {0,              NULL                     },
};

PyType_Spec loop_selector_spec = {
    .name = "pyepoll._epoll.LoopSelector",
    .basicsize = sizeof(LoopSelector),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = loop_selector_slots,
};
