#include "aio/handle_methods.h"

#include "aio/heap.h"
#include "aio/loop.h"
#include "aio/override.h"

/* `_args`: a tuple is made for the one who looks. A new reference. */
static PyObject *
args_of(StockHandle *self, InlineArgs *inline_args)
{
    while (self->args == NULL) {
        /* With CPython 3.11 the collector may run here, and code that sets or cancels. */
        const int count = inline_args->count;
        PyObject *args = PyTuple_New(count);
        if (args == NULL) {
            return NULL;
        }
        if (self->args != NULL || count != inline_args->count) {
            Py_DECREF(args);
            continue;
        }
        for (int i = 0; i < count; i++) {
            PyTuple_SET_ITEM(args, i, Py_NewRef(inline_args->items[i]));
        }
        self->args = args;
    }
    return Py_NewRef(self->args);
}

/* The inline arguments are dropped: the slot has the value from now on. */
static int
set_args(StockHandle *self, InlineArgs *inline_args, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete _args");
        return -1;
    }
    Py_XSETREF(self->args, Py_NewRef(value));
    while (inline_args->count > 0) {
        Py_DECREF(inline_args->items[--inline_args->count]);
    }
    return 0;
}

static PyObject *
handle_get_args(Handle *self, void *Py_UNUSED(closure))
{
    PyObject *args = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    args = args_of(&self->base, &self->inline_args);
    Py_END_CRITICAL_SECTION();
    return args;
}

static int
handle_set_args(Handle *self, PyObject *value, void *Py_UNUSED(closure))
{
    int status = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    status = set_args(&self->base, &self->inline_args, value);
    Py_END_CRITICAL_SECTION();
    return status;
}

static PyObject *
timer_get_args(Timer *self, void *Py_UNUSED(closure))
{
    PyObject *args = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    args = args_of(&self->base.base, &self->inline_args);
    Py_END_CRITICAL_SECTION();
    return args;
}

static int
timer_set_args(Timer *self, PyObject *value, void *Py_UNUSED(closure))
{
    int status = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    status = set_args(&self->base.base, &self->inline_args, value);
    Py_END_CRITICAL_SECTION();
    return status;
}

/* The state that a handle belongs to. NULL with an exception. */
static inline AioState *
state_of(PyObject *self, const InlineArgs *inline_args)
{
#ifndef Py_GIL_DISABLED
    return inline_args->module->aio != NULL ? inline_args->module->aio : aio_state_of(Py_TYPE(self));
#else
    (void)inline_args;
    return aio_state_of(Py_TYPE(self));
#endif
}

/* The loop of a handle, if it is one of ours and not in debug mode: borrowed, or NULL. */
static EventLoop *
quiet_loop(const AioState *state, StockHandle *self)
{
    PyObject *loop = self->loop;
    if (loop == NULL || !loop_is_ours(state, loop)) {
        return NULL;
    }
    const uint64_t used = BOTH_HOOKS(GET_DEBUG) | HOOK(TIMER_HANDLE_CANCELLED);
    EventLoop *ours = (EventLoop *)loop;
    return loop_member(&ours->debug) == Py_False && (loop_overridden(ours) & used) == 0 ? ours : NULL;
}

/* What asyncio.Handle.cancel() does without debug mode. The references are dropped at the end: other code may
 * run then. */
static void
mark_cancelled(StockHandle *self, InlineArgs *inline_args)
{
    InlineArgs inlined = {0};
    PyObject *callback = NULL, *args = NULL, *cancelled = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    cancelled = self->cancelled;
    self->cancelled = Py_NewRef(Py_True);
    callback = self->callback;
    self->callback = Py_NewRef(Py_None);
    args = self->args;
    self->args = Py_NewRef(Py_None);
    inlined.count = inline_args->count;
    memcpy(inlined.items, inline_args->items, sizeof(inlined.items));
    inline_args->count = 0;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(cancelled);
    Py_XDECREF(callback);
    Py_XDECREF(args);
    while (inlined.count > 0) {
        Py_DECREF(inlined.items[--inlined.count]);
    }
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the callback; does nothing if it was called or cancelled before.");

PyObject *
handle_cancel(Handle *self, PyObject *Py_UNUSED(ignored))
{
    const AioState *state = state_of((PyObject *)self, &self->inline_args);
    if (state == NULL) {
        return NULL;
    }
    if (quiet_loop(state, &self->base) == NULL || self->base.cancelled != Py_False) {
        return PyObject_CallOneArg(state->loop.handle_cancel, (PyObject *)self);
    }
    mark_cancelled(&self->base, &self->inline_args);
    Py_RETURN_NONE;
}

/* Take a timer out of the heap at once: true if it is not in it any more. */
static bool
unschedule(const LoopState *state, EventLoop *loop, Timer *self)
{
    if (self->base.scheduled != Py_True) {
        return true;
    }
    PyObject *list = loop_heap(loop);
    if (list == NULL) {
        return false;
    }
    int status = heap_remove(state, list, (PyObject *)self);
    if (status != 0) {
        Py_XSETREF(self->base.scheduled, Py_NewRef(Py_False));
    }
    if (status < 0) {
        PyErr_Clear();
    }
    return status != 0;
}

static PyObject *
timer_cancel(Timer *self, PyObject *Py_UNUSED(ignored))
{
    const AioState *state = state_of((PyObject *)self, &self->inline_args);
    if (state == NULL) {
        return NULL;
    }
    EventLoop *loop = quiet_loop(state, &self->base.base);
    if (loop == NULL || self->base.base.cancelled != Py_False || !unschedule(&state->loop, loop, self)) {
        return PyObject_CallOneArg(state->loop.timer_cancel, (PyObject *)self);
    }
    mark_cancelled(&self->base.base, &self->inline_args);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Return whether the callback was cancelled.");

static PyObject *
handle_cancelled(StockHandle *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *cancelled = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    cancelled = Py_XNewRef(self->cancelled);
    Py_END_CRITICAL_SECTION();
    if (cancelled == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_cancelled");
    }
    return cancelled;
}

PyMethodDef handle_methods[] = {
    {"cancel",    (PyCFunction)handle_cancel,    METH_NOARGS, cancel_doc   },
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS, cancelled_doc},
    {NULL,        NULL,                          0,           NULL         },
};

PyMethodDef timer_methods[] = {
    {"cancel",    (PyCFunction)timer_cancel,     METH_NOARGS, cancel_doc   },
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS, cancelled_doc},
    {NULL,        NULL,                          0,           NULL         },
};

PyGetSetDef handle_getset[] = {
    {"_args", (getter)handle_get_args, (setter)handle_set_args, "The arguments, a tuple.", NULL},
    {NULL,    NULL,                    NULL,                    NULL,                      NULL},
};

/* `_when`: a float is made for the one who looks. */
static PyObject *
timer_get_when(Timer *self, void *Py_UNUSED(closure))
{
    PyObject *when = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->base.when == NULL) {
        self->base.when = PyFloat_FromDouble(self->time);
    }
    when = Py_XNewRef(self->base.when);
    Py_END_CRITICAL_SECTION();
    return when;
}

static int
timer_set_when(Timer *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete _when");
        return -1;
    }
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(self);
    before = self->base.when;
    self->base.when = Py_NewRef(value);
    timer_note_time(self, value);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return 0;
}

PyGetSetDef timer_getset[] = {
    {"_when", (getter)timer_get_when, (setter)timer_set_when, "When it is due.",         NULL},
    {"_args", (getter)timer_get_args, (setter)timer_set_args, "The arguments, a tuple.", NULL},
    {NULL,    NULL,                   NULL,                   NULL,                      NULL},
};
