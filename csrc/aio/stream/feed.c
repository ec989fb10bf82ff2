/* Data for a StreamReader: what data_received() of its protocol and its feed_data() do, in Python.
 *
 * Only for asyncio's own classes and methods, and where the reader has room for the data; all else is left to
 * them, before anything is changed. */
#include "aio/imports.h"
#include "aio/override.h"
#include "aio/schedule.h"
#include "aio/stream/stream.h"

/* Whether asyncio has made a function, or a property of one. */
static bool
is_asyncios(PyObject *object)
{
    PyObject *function = PyFunction_Check(object) ? Py_NewRef(object)
                                                  : PyObject_GetAttrString(object, "fget");
    bool own = function != NULL && override_is_asyncios(function);
    Py_XDECREF(function);
    return own;
}

/* An attribute of a class, if it is asyncio's: a new reference, or NULL. */
static PyObject *
attribute_of_asyncio(PyObject *type, PyObject *name)
{
    PyObject *value = PyType_Check(type) ? PyObject_GetAttr(type, name) : NULL;
    if (value != NULL && !is_asyncios(value)) {
        Py_CLEAR(value);
    }
    return value;
}

/* A program may have replaced the class, or a method of it: then `type` stays NULL. */
static void
learn(const StreamState *state, StreamClass *stock, const char *name, int method, int helper)
{
    PyObject *type = imported("asyncio.streams", name);
    stock->method_name = state->names[method];
    stock->helper_name = state->names[helper];
    stock->method = type != NULL ? attribute_of_asyncio(type, stock->method_name) : NULL;
    stock->helper = stock->method != NULL ? attribute_of_asyncio(type, stock->helper_name) : NULL;
    if (stock->helper != NULL && PyFunction_Check(stock->method)) {
        stock->code = Py_NewRef(PyFunction_GET_CODE(stock->method));
        stock->type = (PyTypeObject *)Py_NewRef(type);
    }
    Py_XDECREF(type);
    PyErr_Clear();
}

void
stream_learn_classes(StreamState *state)
{
    learn(state, &state->classes[STREAM_READER], "StreamReader", NAME_FEED_DATA, NAME_WAKEUP_WAITER);
    learn(state, &state->classes[READER_PROTOCOL], "StreamReaderProtocol", NAME_DATA_RECEIVED,
          NAME_STREAM_READER);
    state->future = (PyTypeObject *)imported("_asyncio", "Future");
    PyErr_Clear();
}

/* The class has the helper that it had. */
static bool
has_helper(StreamClass *stock)
{
    unsigned version = type_version(stock->type);
    if (version != 0 && version == atomic_load_explicit(&stock->version, memory_order_relaxed)) {
        return true;
    }
    PyObject *helper = PyObject_GetAttr((PyObject *)stock->type, stock->helper_name);
    bool same = helper == stock->helper;
    Py_XDECREF(helper);
    atomic_store_explicit(&stock->version, same ? type_version(stock->type) : 0, memory_order_relaxed);
    return same;
}

/* An object is of the class, and neither has another method now. */
static bool
is_stock(StreamClass *stock, PyObject *object)
{
    if (!Py_IS_TYPE(object, stock->type) || !has_helper(stock)) {
        return false;
    }
    PyObject *method = PyObject_GetAttr(object, stock->method_name);
    bool same = method != NULL && PyMethod_Check(method) && PyMethod_GET_SELF(method) == object &&
                PyMethod_GET_FUNCTION(method) == stock->method &&
                PyFunction_GET_CODE(stock->method) == stock->code;
    Py_XDECREF(method);
    return same;
}

/* The reader of a protocol, if both are asyncio's own: a new reference; NULL, maybe with an exception. */
static PyObject *
stock_reader(StreamState *state, PyObject *protocol)
{
    if (!is_stock(&state->classes[READER_PROTOCOL], protocol)) {
        return NULL;
    }
    PyObject *reference = PyObject_GetAttr(protocol, state->names[NAME_READER_REFERENCE]), *reader = NULL;
    if (reference != NULL && PyWeakref_CheckRefExact(reference)) {
        PyWeakref_GetRef(reference, &reader);
    }
    Py_XDECREF(reference);
    if (reader != NULL && !is_stock(&state->classes[STREAM_READER], reader)) {
        Py_CLEAR(reader);
    }
    return reader;
}

/* Whether a reader goes on reading with so many bytes more. */
static bool
has_room(PyObject *buffer, PyObject *limit, Py_ssize_t count)
{
    Py_ssize_t most = PyLong_CheckExact(limit) ? PyLong_AsSsize_t(limit) : -1;
    return most >= 0 && PyByteArray_GET_SIZE(buffer) + count - most <= most;
}

/* Whether a reader may get data: a task waits for them, by a Future of asyncio's own, or it has not ended. */
static bool
is_open(const StreamState *state, PyObject *reader, PyObject *waiter)
{
    if (waiter != Py_None) {
        return Py_IS_TYPE(waiter, state->future);
    }
    PyObject *eof = PyObject_GetAttr(reader, state->names[NAME_EOF]);
    Py_XDECREF(eof);
    return eof == Py_False;
}

/* 0, or -1 with an exception. */
static int
append(PyObject *buffer, const char *data, Py_ssize_t count)
{
    int status;
    Py_BEGIN_CRITICAL_SECTION(buffer);
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    status = PyByteArray_Resize(buffer, size + count);
    if (status == 0) {
        memcpy(PyByteArray_AS_STRING(buffer) + size, data, (size_t)count);
    }
    Py_END_CRITICAL_SECTION();
    return status;
}

/* Set the result of a future, unless it was cancelled. 0, or -1 with an exception. */
static int
set_result(const StreamState *state, PyObject *future)
{
    PyObject *result = PyObject_CallMethodOneArg(future, state->names[NAME_SET_RESULT], Py_None);
    if (result != NULL) {
        return status_of(result);
    }
    PyObject *error = PyErr_GetRaisedException();
    PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->names[NAME_CANCELLED]);
    if (cancelled == Py_True) {
        Py_CLEAR(error);
    }
    Py_XDECREF(cancelled);
    PyErr_SetRaisedException(error);
    return error == NULL ? 0 : -1;
}

/* Let the task that waits go on. 0, or -1 with an exception. */
static int
wake(const StreamState *state, PyObject *reader, PyObject *waiter)
{
    if (waiter == Py_None) {
        return 0;
    }
    int status = PyObject_SetAttr(reader, state->names[NAME_WAITER], Py_None);
    return status == 0 ? set_result(state, waiter) : -1;
}

/* As stream_feed(); 0 maybe with an exception. */
static int
feed(const StreamState *state, PyObject *reader, const char *data, Py_ssize_t count)
{
    PyObject *waiter = PyObject_GetAttr(reader, state->names[NAME_WAITER]);
    PyObject *limit = waiter != NULL ? PyObject_GetAttr(reader, state->names[NAME_LIMIT]) : NULL;
    PyObject *buffer = limit != NULL ? PyObject_GetAttr(reader, state->names[NAME_BUFFER]) : NULL;
    int status = 0;
    if (buffer != NULL && PyByteArray_CheckExact(buffer) && has_room(buffer, limit, count) &&
        is_open(state, reader, waiter)) {
        status = append(buffer, data, count) == 0 && wake(state, reader, waiter) == 0 ? 1 : -1;
    }
    Py_XDECREF(buffer);
    Py_XDECREF(limit);
    Py_XDECREF(waiter);
    return status;
}

/* An exception while all was left as it was: 0 if asyncio's code will meet it again, or do without. */
static int
leave(void)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return 0;
    }
    return -1;
}

int
stream_feed(const Stream *self, const char *data, Py_ssize_t count)
{
    StreamState *state = stream_state(self);
    if (!Py_IS_TYPE(self->protocol, state->classes[READER_PROTOCOL].type) || !is_given(self->loop) ||
        schedule_is_debug(self->module->aio, self->loop) != 0) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *reader = stock_reader(state, protocol);
    int status = reader != NULL ? feed(state, reader, data, count) : 0;
    if (status == 0 && PyErr_Occurred()) {
        status = leave();
    }
    Py_XDECREF(reader);
    Py_DECREF(protocol);
    return status;
}
