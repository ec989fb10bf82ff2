/* Receiving, for a BufferedProtocol: into the buffer that it gives. */
#include "aio/stream/stream.h"

#include <errno.h>

static const char *const read_error = "Fatal read error on socket transport";

/* The protocol's buffer: a new reference; NULL with an exception. */
static PyObject *
buffer_of(Stream *self)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *buffer = PyObject_CallMethodOneArg(protocol, stream_name(self, NAME_GET_BUFFER),
                                                 stream_state(self)->minus_one);
    Py_DECREF(protocol);
    Py_ssize_t length = buffer != NULL ? PyObject_Size(buffer) : -1;
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    if (length <= 0) {
        Py_CLEAR(buffer);
    }
    return buffer;
}

/* The result of one recv() into a buffer. */
typedef struct {
    ssize_t count; /* of recv() */
    int error;     /* where `count` is below 0: 0 if an exception is set */
} Received;

/* By the method of a socket of another class. */
static Received
receive_by_method(Stream *self, PyObject *buffer)
{
    PyObject *number = is_given(self->sock)
                           ? PyObject_CallMethodOneArg(self->sock, stream_name(self, NAME_RECV_INTO), buffer)
                           : NULL;
    Py_ssize_t count = number != NULL ? PyLong_AsSsize_t(number) : -1;
    Py_XDECREF(number);
    if (count < 0 &&
        (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError))) {
        PyErr_Clear();
        return (Received){-1, EAGAIN};
    }
    return (Received){count, 0};
}

static Received
receive_into(Stream *self, PyObject *buffer)
{
    if (stream_open_fd(self) < 0) {
        return receive_by_method(self, buffer);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        /* In the words of socket.recv_into(). */
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.50s",
                     Py_TYPE(buffer)->tp_name);
        return (Received){-1, 0};
    }
    /* Python code may have run, in get_buffer() and the buffer's class: without an open socket this is
     * EBADF. */
    ssize_t count = recv(stream_open_fd(self), view.buf, (size_t)view.len, MSG_DONTWAIT);
    int error = errno;
    PyBuffer_Release(&view);
    return (Received){count, error};
}

static int
deliver_count(Stream *self, ssize_t received)
{
    PyObject *protocol = Py_NewRef(self->protocol != NULL ? self->protocol : Py_None);
    PyObject *count = PyLong_FromSsize_t(received);
    PyObject *result = count != NULL ? PyObject_CallMethodOneArg(
                                           protocol, stream_name(self, NAME_BUFFER_UPDATED), count)
                                     : NULL;
    Py_XDECREF(count);
    Py_DECREF(protocol);
    return result != NULL ? status_of(result)
                          : stream_fail(self, "Fatal error: protocol.buffer_updated() call failed.");
}

int
stream_read_to_buffer(Stream *self)
{
    PyObject *buffer = buffer_of(self);
    if (buffer == NULL) {
        return stream_fail(self, "Fatal error: protocol.get_buffer() call failed.");
    }
    Received received = receive_into(self, buffer);
    Py_DECREF(buffer);
    if (received.count < 0 && received.error == 0) {
        return stream_fail(self, read_error);
    }
    return received.count > 0 ? deliver_count(self, received.count)
                              : stream_nothing_received(self, received.count, received.error);
}
