/* Data for a StreamReader: what data_received() of its protocol and its feed_data() do, in Python.
 *
 * Only for asyncio's own classes and methods, and where the reader has room for the data; all else is left to
 * them, before anything is changed. */
#include "aio/stream/stream.h"

/* Whether a method of an object is this function: not if the object or its class got another one. */
static bool
has_method(PyObject *object, PyObject *name, const PyObject *function)
{
    PyObject *method = PyObject_GetAttr(object, name);
    bool same = method != NULL && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function &&
                PyMethod_GET_SELF(method) == object;
    Py_XDECREF(method);
    return same;
}

/* The reader of a protocol, if both are asyncio's own: a new reference; NULL, maybe with an exception. */
static PyObject *
plain_reader(const StreamState *state, PyObject *protocol)
{
    PyObject *reader = NULL;
    if (!has_method(protocol, state->names[NAME_DATA_RECEIVED], state->data_received)) {
        return NULL;
    }
    PyObject *reference = PyObject_GetAttr(protocol, state->names[NAME_READER_REFERENCE]);
    if (reference != NULL && PyWeakref_Check(reference)) {
        PyWeakref_GetRef(reference, &reader);
    }
    Py_XDECREF(reference);
    if (reader != NULL && (!Py_IS_TYPE(reader, state->reader_type) ||
                           !has_method(reader, state->names[NAME_FEED_DATA], state->feed_data))) {
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
is_open(const Stream *self, PyObject *reader, PyObject *waiter)
{
    if (waiter != Py_None) {
        return Py_IS_TYPE(waiter, (PyTypeObject *)self->module->aio->loop.globals[GLOBAL_FUTURE].value);
    }
    PyObject *eof = PyObject_GetAttr(reader, stream_name(self, NAME_EOF));
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
feed(const Stream *self, PyObject *reader, const char *data, Py_ssize_t count)
{
    const StreamState *state = stream_state(self);
    PyObject *waiter = PyObject_GetAttr(reader, state->names[NAME_WAITER]);
    PyObject *limit = waiter != NULL ? PyObject_GetAttr(reader, state->names[NAME_LIMIT]) : NULL;
    PyObject *buffer = limit != NULL ? PyObject_GetAttr(reader, state->names[NAME_BUFFER]) : NULL;
    int status = 0;
    if (buffer != NULL && PyByteArray_CheckExact(buffer) && has_room(buffer, limit, count) &&
        is_open(self, reader, waiter)) {
        status = append(buffer, data, count) == 0 && wake(state, reader, waiter) == 0 ? 1 : -1;
    }
    Py_XDECREF(buffer);
    Py_XDECREF(limit);
    Py_XDECREF(waiter);
    return status;
}

int
stream_feed(const Stream *self, const char *data, Py_ssize_t count)
{
    const StreamState *state = stream_state(self);
    if (!Py_IS_TYPE(self->protocol, state->reader_protocol)) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *reader = plain_reader(state, protocol);
    int status = reader != NULL ? feed(self, reader, data, count) : 0;
    if (status == 0) {
        PyErr_Clear();
    }
    Py_XDECREF(reader);
    Py_DECREF(protocol);
    return status;
}
