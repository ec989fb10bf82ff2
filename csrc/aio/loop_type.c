#include "aio/loop_type.h"

#include "aio/address.h"
#include "aio/ask.h"
#include "aio/connect.h"
#include "aio/create.h"
#include "aio/inbox.h"
#include "aio/loop_docs.h"
#include "aio/loop_load.h"
#include "aio/override.h"
#include "aio/schedule.h"
#include "aio/serve.h"
#include "aio/spare.h"
#include "aio/turn.h"
#include "aio/wake_event.h"
#include "base/subclass.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    ModuleState *module = module_state_of(type);
    if (module == NULL || module->aio == NULL) {
        return NULL;
    }
    EventLoop *self = (EventLoop *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = module_hold(module);
    self->state = module->aio;
    self->epoch = fork_epoch();
    /* For repr() and __del__ of a loop that was made by __new__ alone. */
    self->closed = Py_NewRef(Py_True);
    self->debug = Py_NewRef(Py_False);
    self->thread_id = Py_NewRef(Py_None);
    return (PyObject *)self;
}

/* The members, which are objects, are a block from `ready` to `ssock`. */
enum { MEMBERS = (offsetof(EventLoop, ssock) - offsetof(EventLoop, ready)) / sizeof(PyObject *) + 1 };

static int
loop_traverse(EventLoop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    PyObject **members = &self->ready;
    for (int i = 0; i < MEMBERS; i++) {
        Py_VISIT(members[i]);
    }
    if (self->module != NULL) {
        Py_VISIT(self->module->object);
    }
#ifdef Py_GIL_DISABLED
    return spare_traverse(self->spare, visit, arg);
#else
    return 0;
#endif
}

static int
loop_clear(EventLoop *self)
{
    PyObject **members = &self->ready;
    for (int i = 0; i < MEMBERS; i++) {
        Py_CLEAR(members[i]);
    }
#ifdef Py_GIL_DISABLED
    spare_free(self->spare);
#endif
    return 0;
}

static void
loop_dealloc(EventLoop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ModuleState *module = self->module;
    PyObject_GC_UnTrack(self);
    loop_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    module_drop(module);
}

/* Whether an attribute that is set goes into the loop's __dict__: the class has no data descriptor of this
 * name. */
static bool
goes_into_dict(EventLoop *self, PyObject *name)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *found = PyObject_GetAttr((PyObject *)Py_TYPE(self), name);
    bool in_dict = found == NULL || Py_TYPE(found)->tp_descr_set == NULL;
    Py_XDECREF(found);
    PyErr_SetRaisedException(error);
    return in_dict;
}

/* Drop what the loop keeps for as long as `_transports` is the same, and for as long as it is open. */
static void
forget(EventLoop *self, bool other_transports, bool closed)
{
    PyObject *fds = NULL, *options = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (other_transports) {
        fds = self->transport_fds;
        self->transport_fds = NULL;
    }
    if (closed) {
        options = self->options;
        self->options = NULL;
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(fds);
    Py_XDECREF(options);
}

static int
loop_setattro(EventLoop *self, PyObject *name, PyObject *value)
{
    if (!self->has_names && goes_into_dict(self, name)) {
        self->has_names = true;
    }
    const PyObject *selector = loop_member(&self->selector);
    const PyObject *transports = loop_member(&self->transports);
    int status = PyObject_GenericSetAttr((PyObject *)self, name, value);
    if (loop_member(&self->selector) != selector) {
        Py_XDECREF(wake_event_swap(self, NULL)); /* another does not watch it */
    }
    forget(self, loop_member(&self->transports) != transports, loop_member(&self->closed) != Py_False);
    loop_look_again(self);
    return status;
}

/* `__dict__`: from now on it may change unseen. */
static PyObject *
loop_get_dict(EventLoop *self, void *Py_UNUSED(closure))
{
    self->exposed = true;
    loop_look_again(self);
    return PyObject_GenericGetDict((PyObject *)self, NULL);
}

static int
loop_set_dict(EventLoop *self, PyObject *value, void *Py_UNUSED(closure))
{
    self->exposed = true;
    loop_look_again(self);
    return PyObject_GenericSetDict((PyObject *)self, value, NULL);
}

static PyMemberDef loop_members[] = {
    {"_ready", T_OBJECT_EX, offsetof(EventLoop, ready), 0, NULL},
    {"_scheduled", T_OBJECT_EX, offsetof(EventLoop, scheduled), 0, NULL},
    {"_selector", T_OBJECT_EX, offsetof(EventLoop, selector), 0, NULL},
    {"_debug", T_OBJECT_EX, offsetof(EventLoop, debug), 0, NULL},
    {"_closed", T_OBJECT_EX, offsetof(EventLoop, closed), 0, NULL},
    {"_stopping", T_OBJECT_EX, offsetof(EventLoop, stopping), 0, NULL},
    {"_thread_id", T_OBJECT_EX, offsetof(EventLoop, thread_id), 0, NULL},
    {"_timer_cancelled_count", T_OBJECT_EX, offsetof(EventLoop, timer_cancelled_count), 0, NULL},
    {"_clock_resolution", T_OBJECT_EX, offsetof(EventLoop, clock_resolution), 0, NULL},
    {"_task_factory", T_OBJECT_EX, offsetof(EventLoop, task_factory), 0, NULL},
    {"_internal_fds", T_OBJECT_EX, offsetof(EventLoop, internal_fds), 0, NULL},
    {"_signal_handlers", T_OBJECT_EX, offsetof(EventLoop, signal_handlers), 0, NULL},
    {"_transports", T_OBJECT_EX, offsetof(EventLoop, transports), 0, NULL},
    {"_default_executor", T_OBJECT_EX, offsetof(EventLoop, default_executor), 0, NULL},
    {"_executor_shutdown_called", T_OBJECT_EX, offsetof(EventLoop, executor_shutdown_called), 0, NULL},
    {"_pending_writes", T_OBJECT_EX, offsetof(EventLoop, pending_writes), 0, NULL},
    {"_wake_event", T_OBJECT, offsetof(EventLoop, wake_event), 0, NULL},
    {"_csock", T_OBJECT_EX, offsetof(EventLoop, csock), 0, NULL},
    {"_ssock", T_OBJECT_EX, offsetof(EventLoop, ssock), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef loop_getset[] = {
    {"__dict__", (getter)loop_get_dict, (setter)loop_set_dict, NULL, NULL},
    {NULL,       NULL,                  NULL,                  NULL, NULL},
};

PyDoc_STRVAR(find_addresses_doc,
"_find_addresses($self, host, port, family, type, proto, flags, /)\n--\n\n"
"What getaddrinfo() returns for a numeric address and port. None for others; NotImplemented where asyncio's\n"
"method has to run, because run_in_executor() or something else was replaced.");

PyDoc_STRVAR(connect_open_doc, CONNECT_OPEN_DOC);
PyDoc_STRVAR(connect_done_doc, CONNECT_DONE_DOC);
PyDoc_STRVAR(serve_ready_doc, SERVE_READY_DOC);
PyDoc_STRVAR(serve_doc, SERVE_DOC);

PyDoc_STRVAR(make_wake_event_doc,
"_make_wake_event($self, /)\n--\n\n"
"Make the event with which other threads wake the loop.");

PyDoc_STRVAR(read_from_self_doc,
"_read_from_self($self, /)\n--\n\n"
"Empty the pipe that wakes the loop.");

PyDoc_STRVAR(stats_doc,
"_stats($self, /)\n--\n\n"
"The fields of LoopStats.");

static PyObject *
loop_stats(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    return counters_tuple(&self->counters);
}

PyDoc_STRVAR(enable_stats_doc,
"_enable_stats($self, enabled, /)\n--\n\n"
"Begin or end to measure time. From any thread.");

static PyObject *
loop_enable_stats(EventLoop *self, PyObject *enabled)
{
    int truth = PyObject_IsTrue(enabled);
    if (truth < 0) {
        return NULL;
    }
    atomic_store(&self->counters.timed, truth != 0);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(run_once_doc,
"_run_once($self, /)\n--\n\n"
"Run one turn.");

PyDoc_STRVAR(run_forever_doc,
"run_forever($self, /)\n--\n\n"
"Run until stop() is called.\n\n"
"Raises RuntimeError if the loop is closed, or a loop is running in this thread.");

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
#define POSITIONAL(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef loop_methods[] = {
    {"call_soon", FAST(schedule_soon), call_soon_doc},
    {"call_soon_threadsafe", FAST(inbox_call_soon_threadsafe), call_soon_threadsafe_doc},
    {"call_later", FAST(schedule_later), call_later_doc},
    {"call_at", FAST(schedule_at), call_at_doc},
    {"create_future", (PyCFunction)create_future, METH_NOARGS, create_future_doc},
    {"create_task", FAST(create_task), create_task_doc},
    {"get_debug", (PyCFunction)ask_debug, METH_NOARGS, get_debug_doc},
    {"time", (PyCFunction)ask_time, METH_NOARGS, time_doc},
    {"_find_addresses", (PyCFunction)(void (*)(void))address_find, METH_FASTCALL, find_addresses_doc},
    {"_serve_ready", POSITIONAL(serve_ready), serve_ready_doc},
    {"_serve", POSITIONAL(serve), serve_doc},
    {"_open_connection", POSITIONAL(connect_open), connect_open_doc},
    {"_connection_done", POSITIONAL(connect_done), connect_done_doc},
    {"_make_wake_event", (PyCFunction)wake_event_make, METH_NOARGS, make_wake_event_doc},
    {"_read_from_self", (PyCFunction)inbox_read_from_self, METH_NOARGS, read_from_self_doc},
    {"_stats", (PyCFunction)loop_stats, METH_NOARGS, stats_doc},
    {"_enable_stats", (PyCFunction)loop_enable_stats, METH_O, enable_stats_doc},
    {"_run_once", (PyCFunction)turn_run_once, METH_NOARGS, run_once_doc},
    {"run_forever", (PyCFunction)turn_run_forever, METH_NOARGS, run_forever_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(loop_doc,
"The base of pyepoll.aio's event loop: its turns, and what schedules callbacks.");

static PyType_Slot loop_slots[] = {
    {Py_tp_doc,      (void *)loop_doc},
    {Py_tp_new,      loop_new        },
    {Py_tp_dealloc,  loop_dealloc    },
    {Py_tp_traverse, loop_traverse   },
    {Py_tp_clear,    loop_clear      },
    {Py_tp_setattro, loop_setattro   },
    {Py_tp_members,  loop_members    },
    {Py_tp_methods,  loop_methods    },
    {Py_tp_getset,   loop_getset     },
    {0,              NULL            },
};

static PyType_Spec loop_spec = {
    .name = "pyepoll._epoll._LoopBase",
    .basicsize = sizeof(EventLoop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

int
loop_init(PyObject *module, LoopState *state)
{
    state->base_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    state->queue_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ready_queue_spec, NULL);
    state->wake_event_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &wake_event_spec, NULL);
    return state->base_type != NULL && state->queue_type != NULL && state->wake_event_type != NULL
               ? loop_state_init(module, state)
               : -1;
}

PyObject *
loop_learn(PyObject *module, PyObject *args)
{
    LoopState *state = &aio_state(module)->loop;
    PyTypeObject *ours, *stock, *selector;
    PyObject *report;
    if (!PyArg_ParseTuple(args, "O!O!O!O:_learn_loop", &PyType_Type, &ours, &PyType_Type, &stock,
                          &PyType_Type, &selector, &report)) {
        return NULL;
    }
    if (!PyType_IsSubtype(ours, state->base_type) || !PyType_IsSubtype(ours, stock)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of %R and %R", ours, state->base_type,
                            stock);
    }
    if (subclass_copy_methods((PyObject *)ours, loop_methods) < 0 || override_learn(state, ours, stock) < 0) {
        return NULL;
    }
    Py_XSETREF(state->loop_class, (PyTypeObject *)Py_NewRef(ours));
    Py_XSETREF(state->selector_type, (PyTypeObject *)Py_NewRef(selector));
    Py_XSETREF(state->report_error, Py_NewRef(report));
    Py_RETURN_NONE;
}
