/* A pipe is readable. The system call is made without the GIL: another process that shares the pipe may have
 * made it blocking, and it may wait for a thread of this one. */
#include "aio/pipe/pipe.h"

#include "aio/sockop.h"

#include <unistd.h>

enum {
    READ_MAX = 64 * 1024, /* the default capacity of a pipe: the max_size that ReadPipeTransport sets */
};

/* The needs of one read; `protocol` is a new reference. */
typedef struct {
    PyObject *protocol;
    Py_ssize_t size;
    int fd;
} PipeRead;

/* Whether the slots have the usual values; only then `reading` is filled. */
static bool
start_pipe_read(const PipeState *state, PyObject *self, PipeRead *reading)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    PyObject *size = aio_slot(self, state->read_slots[READ_MAX_SIZE]);
    reading->size = size != NULL && PyLong_CheckExact(size) ? PyLong_AsSsize_t(size) : 0;
    reading->fd = pipe_fd(aio_slot(self, state->read_slots[READ_FD]));
    reading->protocol = Py_XNewRef(aio_slot(self, state->read_slots[READ_PROTOCOL]));
    Py_END_CRITICAL_SECTION();
    if (reading->protocol != NULL && reading->size > 0 && reading->size <= READ_MAX && reading->fd >= 0) {
        return true;
    }
    PyErr_Clear(); /* OverflowError, of the size */
    Py_CLEAR(reading->protocol);
    return false;
}

/* The bytes; NULL with an exception, or with an errno in `error`. */
static PyObject *
read_bytes(PipeState *state, const PipeRead *reading, int *error)
{
    PyObject *spare = atomic_exchange(&state->spare, NULL);
    if (spare == NULL && (spare = PyBytes_FromStringAndSize(NULL, READ_MAX)) == NULL) {
        return NULL;
    }
    char *buffer = PyBytes_AS_STRING(spare);
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = read(reading->fd, buffer, (size_t)reading->size);
    *error = count < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    if (count == READ_MAX) {
        return spare;
    }
    PyObject *data = count >= 0 ? PyBytes_FromStringAndSize(buffer, count) : NULL;
    Py_XDECREF(atomic_exchange(&state->spare, spare));
    return data;
}

PyObject *
pipe_failed(const PipeState *state, PyObject *self, int error)
{
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(self, state->names[PIPE_FAILED], raised);
    Py_DECREF(raised);
    return none_or_error(status_of(result));
}

PyObject *
pipe_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioState *aio = aio_state_of(Py_TYPE(self));
    if (aio == NULL) {
        return NULL;
    }
    PipeState *state = &aio->pipe;
    PipeRead reading;
    if (pipe_call_is_replaced(aio, GLOBAL_READ) || !start_pipe_read(state, self, &reading)) {
        return PyObject_CallMethodNoArgs(self, state->names[PIPE_READ_SLOWLY]);
    }
    if (reading.protocol == Py_None) { /* connection_lost() was called: the fd may be an unrelated one */
        return reading.protocol;
    }
    int error = 0;
    PyObject *data = read_bytes(state, &reading, &error), *result;
    if (data == NULL) {
        result = would_block(error) ? Py_NewRef(Py_None) : pipe_failed(state, self, error);
    }
    else if (PyBytes_GET_SIZE(data) == 0) {
        result = PyObject_CallMethodNoArgs(self, state->names[PIPE_END]);
    }
    else {
        result = PyObject_CallMethodOneArg(reading.protocol, state->names[PIPE_DATA_RECEIVED], data);
    }
    Py_XDECREF(data);
    Py_DECREF(reading.protocol);
    return none_or_error(status_of(result));
}
