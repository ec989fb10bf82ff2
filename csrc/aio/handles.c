/*
 * The handles for the events that a selector has reported are run by one handle of the loop, a group. In the
 * loop's queue it stands in their place, and runs them in the order in which they would run.
 *
 * The read method of a transport is called without Handle._run(), which would only enter the context and call
 * it.
 */
#include "aio/state.h"

#include <stddef.h>

typedef struct {
    PyObject_VAR_HEAD
    PyObject *loop;
    PyObject *module;
    const AioState *state; /* of the module */
    bool direct;           /* Handle._run() is asyncio's own: there is no need to call it */
    bool cancelled;
    Py_ssize_t next;
    PyObject *handles[];
} HandleGroup;

static PyObject *
handle_attribute(const AioState *state, PyObject *handle, int index)
{
    return aio_slot(handle, state->handle_offsets[index]);
}

/* Report an exception to the loop as Handle._run() would. A new reference to None; NULL for an exception that
 * has to end the loop. */
static PyObject *
report_exception(const HandleGroup *self, PyObject *handle)
{
    if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return NULL;
    }
    PyObject *error = PyErr_GetRaisedException();
    PyObject *args[] = {self->loop, handle, error};
    PyObject *result = PyObject_VectorcallMethod(self->state->methods[CALLBACK_FAILED], args, 3, NULL);
    Py_DECREF(error);
    return result;
}

/* Leave a context, and keep the result or the exception that is set. */
static PyObject *
leave_context(PyObject *context, PyObject *result)
{
    PyObject *error = result == NULL ? PyErr_GetRaisedException() : NULL;
    int status = PyContext_Exit(context);
    if (error != NULL) {
        PyErr_SetRaisedException(error);
    }
    else if (status < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* Call the read method of a transport in the context of its handle. */
static PyObject *
read_in_context(const HandleGroup *self, PyObject *handle, PyObject *transport, PyObject *context)
{
    PyObject *result = NULL;
    if (PyContext_Enter(context) == 0) {
        result = leave_context(context, transport_read_ready(transport, NULL));
    }
    return result != NULL ? result : report_exception(self, handle);
}

/* Whether a handle does nothing but call the read method of a transport in a context. */
static bool
is_reading(const AioState *state, PyObject *handle)
{
    PyObject *callback = handle_attribute(state, handle, HANDLE_CALLBACK);
    PyObject *args = handle_attribute(state, handle, HANDLE_ARGS);
    PyObject *context = handle_attribute(state, handle, HANDLE_CONTEXT);
    return Py_IS_TYPE(handle, state->handle_type) && callback != NULL && PyCFunction_Check(callback) &&
           PyCFunction_GET_FUNCTION(callback) == transport_read_ready && args != NULL &&
           PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 0 && context != NULL &&
           PyContext_CheckExact(context);
}

/* Whether Handle._run() is asyncio's own. */
static bool
is_direct(const AioState *state)
{
    PyObject *function = PyObject_GetAttr((PyObject *)state->handle_type, state->methods[RUN]);
    PyErr_Clear();
    Py_XDECREF(function);
    return function == state->handle_run;
}

/* Run a handle, if it is not cancelled. A new reference; NULL with an exception. */
static PyObject *
run(const HandleGroup *self, PyObject *handle)
{
    PyObject *transport = NULL, *context = NULL;
    bool cancelled = false;
    Py_BEGIN_CRITICAL_SECTION(handle);
    cancelled = handle_attribute(self->state, handle, HANDLE_CANCELLED) != Py_False;
    if (!cancelled && self->direct && is_reading(self->state, handle)) {
        transport = Py_NewRef(PyCFunction_GET_SELF(handle_attribute(self->state, handle, HANDLE_CALLBACK)));
        context = Py_NewRef(handle_attribute(self->state, handle, HANDLE_CONTEXT));
    }
    Py_END_CRITICAL_SECTION();
    PyObject *result = cancelled         ? Py_NewRef(Py_None)
                       : context != NULL ? read_in_context(self, handle, transport, context)
                                         : PyObject_CallMethodNoArgs(handle, self->state->methods[RUN]);
    Py_XDECREF(transport);
    Py_XDECREF(context);
    return result;
}

/* Put the handles that have not run back into the loop's queue. The exception that is set stays set. No
 * Python code runs here, in which a signal handler might raise another one that would be lost. */
static void
keep_rest(HandleGroup *self)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *ready = PyObject_GetAttr(self->loop, self->state->methods[READY]);
    PyObject *result = ready != NULL ? PyObject_CallMethodOneArg(ready, self->state->methods[APPENDLEFT],
                                                                 (PyObject *)self)
                                     : NULL;
    Py_XDECREF(ready);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
    PyErr_SetRaisedException(error);
}

/* Take the next handle out: a new reference, or NULL. A handle that runs may run the rest, and so may another
 * thread. */
static PyObject *
take_next(HandleGroup *self)
{
    PyObject *handle = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->next < Py_SIZE(self)) {
        handle = self->handles[self->next];
        self->handles[self->next++] = NULL;
    }
    Py_END_CRITICAL_SECTION();
    return handle;
}

PyDoc_STRVAR(run_doc,
"_run($self, /)\n--\n\n"
"Run the handles that have not run yet and are not cancelled. After SystemExit or KeyboardInterrupt, the\n"
"rest goes back to the loop.");

static PyObject *
group_run(HandleGroup *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *handle;
    self->direct = is_direct(self->state);
    while ((handle = take_next(self)) != NULL) {
        PyObject *result = run(self, handle);
        Py_DECREF(handle);
        if (result == NULL) {
            if (self->next < Py_SIZE(self)) {
                keep_rest(self);
            }
            return NULL;
        }
        Py_DECREF(result);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the handles that have not run yet.");

static PyObject *
group_cancel(HandleGroup *self, PyObject *Py_UNUSED(ignored))
{
    self->cancelled = true;
    for (Py_ssize_t i = self->next; i < Py_SIZE(self); i++) {
        PyObject *handle = NULL;
        Py_BEGIN_CRITICAL_SECTION(self);
        handle = Py_XNewRef(self->handles[i]);
        Py_END_CRITICAL_SECTION();
        PyObject *result = handle != NULL ? PyObject_CallMethodNoArgs(handle, self->state->methods[CANCEL])
                                          : Py_NewRef(Py_None);
        Py_XDECREF(handle);
        if (result == NULL) {
            return NULL;
        }
        Py_DECREF(result);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Whether it has been cancelled as a whole.");

static PyObject *
group_is_cancelled(HandleGroup *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->cancelled);
}

static int
group_traverse(HandleGroup *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->module);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_VISIT(self->handles[i]);
    }
    return 0;
}

static int
group_clear(HandleGroup *self)
{
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_CLEAR(self->handles[i]);
    }
    self->next = Py_SIZE(self);
    return 0;
}

static void
group_dealloc(HandleGroup *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    group_clear(self);
    Py_DECREF(self->loop);
    Py_DECREF(self->module);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* The attributes of a handle that a loop reads, in debug mode too. */
static PyObject *
group_cancelled(HandleGroup *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->cancelled);
}

static PyObject *
group_none(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

/* The handle of a key's data at `index`, 0 for reading and 1 for writing, if there is one and `mask` has its
 * bit; else NULL. Borrowed. */
static PyObject *
waiting(PyObject *data, int index, long mask)
{
    PyObject *handle = (mask & (1 << index)) != 0 ? PyTuple_GET_ITEM(data, index) : NULL;
    return handle != Py_None ? handle : NULL;
}

/* The data of an event's key, a pair of handles or None, and the event's mask; NULL, without an exception,
 * for an event of another form. Borrowed. */
static PyObject *
data_of(PyObject *event, long *mask)
{
    enum { KEY_DATA = 3 };
    PyObject *key = PyTuple_Check(event) && PyTuple_GET_SIZE(event) == 2 ? PyTuple_GET_ITEM(event, 0) : NULL;
    if (key == NULL || !PyTuple_Check(key) || PyTuple_GET_SIZE(key) != KEY_DATA + 1 ||
        !PyLong_CheckExact(PyTuple_GET_ITEM(event, 1))) {
        return NULL;
    }
    int overflow;
    *mask = PyLong_AsLongAndOverflow(PyTuple_GET_ITEM(event, 1), &overflow);
    PyObject *data = PyTuple_GET_ITEM(key, KEY_DATA);
    return overflow == 0 && PyTuple_Check(data) && PyTuple_GET_SIZE(data) == 2 ? data : NULL;
}

/* Collect the handles of the events. False, without an exception, if one is cancelled or anything is not as
 * asyncio makes it. */
static bool
collect(HandleGroup *self, PyObject *events, Py_ssize_t count)
{
    const AioState *state = self->state;
    for (Py_ssize_t i = 0; i < count; i++) {
        long mask;
        PyObject *data = i < PyList_GET_SIZE(events) ? data_of(PyList_GET_ITEM(events, i), &mask) : NULL;
        if (data == NULL) {
            return false;
        }
        for (int index = 0; index < 2; index++) {
            PyObject *handle = waiting(data, index, mask);
            if (handle == NULL) {
                continue;
            }
            if (!Py_IS_TYPE(handle, state->handle_type) ||
                handle_attribute(state, handle, HANDLE_CANCELLED) != Py_False) {
                return false;
            }
            self->handles[Py_SIZE(self)] = Py_NewRef(handle);
            Py_SET_SIZE(self, Py_SIZE(self) + 1);
        }
    }
    return true;
}

/* A group with room for the handles of `count` events, and none in it. */
static HandleGroup *
group_new(PyObject *module, PyObject *loop, Py_ssize_t count)
{
    const AioState *state = aio_state(module);
    HandleGroup *self = PyObject_GC_NewVar(HandleGroup, state->group_type, 2 * count);
    if (self == NULL) {
        return NULL;
    }
    Py_SET_SIZE(self, 0);
    self->loop = Py_NewRef(loop);
    self->module = Py_NewRef(module);
    self->state = state;
    self->direct = false;
    self->cancelled = false;
    self->next = 0;
    return self;
}

PyObject *
handles_group(PyObject *module, PyObject *args)
{
    const AioState *state = aio_state(module);
    PyObject *loop, *events;
    if (!PyArg_ParseTuple(args, "OO:_batch", &loop, &events)) {
        return NULL;
    }
    if (state->handle_type == NULL || state->group_type == NULL || !PyList_CheckExact(events)) {
        Py_RETURN_NONE;
    }
    Py_ssize_t count = PyList_GET_SIZE(events);
    HandleGroup *self = group_new(module, loop, count);
    if (self == NULL) {
        return NULL;
    }
    bool plain = false;
    Py_BEGIN_CRITICAL_SECTION(events);
    plain = collect(self, events, count);
    Py_END_CRITICAL_SECTION();
    PyObject_GC_Track(self);
    if (!plain) {
        Py_DECREF(self);
        Py_RETURN_NONE;
    }
    return (PyObject *)self;
}

static PyMethodDef group_methods[] = {
    {"_run",      (PyCFunction)group_run,          METH_NOARGS, run_doc      },
    {"cancel",    (PyCFunction)group_cancel,       METH_NOARGS, cancel_doc   },
    {"cancelled", (PyCFunction)group_is_cancelled, METH_NOARGS, cancelled_doc},
    {NULL,        NULL,                            0,           NULL         },
};

static PyGetSetDef group_getset[] = {
    {"_callback",         group_none,              NULL, "None: it has several.",               NULL},
    {"_cancelled",        (getter)group_cancelled, NULL, "Whether cancel() was called.",        NULL},
    {"_source_traceback", group_none,              NULL, "None: it is not made in debug mode.", NULL},
    {NULL,                NULL,                    NULL, NULL,                                  NULL},
};

PyDoc_STRVAR(group_doc,
"The handles for the events that the selector has reported, as one handle of the loop.");

static PyType_Slot group_slots[] = {
    {Py_tp_doc,      (void *)group_doc},
    {Py_tp_dealloc,  group_dealloc    },
    {Py_tp_traverse, group_traverse   },
    {Py_tp_clear,    group_clear      },
    {Py_tp_methods,  group_methods    },
    {Py_tp_getset,   group_getset     },
    {0,              NULL             },
};

PyType_Spec group_spec = {
    .name = "pyepoll._epoll.Batch",
    .basicsize = offsetof(HandleGroup, handles),
    .itemsize = sizeof(PyObject *),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = group_slots,
};
