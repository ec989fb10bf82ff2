/* Receiving, for a protocol with data_received().
 *
 * The system call is made with the GIL held: it does not block, and to release the GIL costs more than a
 * short call takes. There is one call for an event, so a busy peer has at most `max_size` bytes of a turn. */
#include "aio/stream/stream.h"

#include <errno.h>

enum {
    SHARED_SIZE = 256 * 1024, /* as much as asyncio asks for at a time */
    BULK_FROM = 32 * 1024,    /* after so much, the next read goes straight into its object */
    SHORT_READS = 64,         /* so many that are short in a row make the next object smaller */
};

static const char *const read_error = "Fatal read error on socket transport";
static const char *const delivery_error = "Fatal error: protocol.data_received() call failed.";

/* The socket is open, and not of a subclass, which may have methods of its own. */
int
stream_open_fd(const Stream *self)
{
    const StreamState *state = stream_state(self);
    bool plain = self->sock != NULL && state->socket_type != NULL &&
                 Py_IS_TYPE(self->sock, state->socket_type);
    return plain && aio_slot(self->sock, state->closed_offset) == Py_False ? self->fd : -1;
}

/* The peer has shut its side. */
static int
end_of_stream(Stream *self)
{
    if (stream_log(self, "%r received EOF") < 0) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *keep = PyObject_CallMethodNoArgs(protocol, stream_name(self, NAME_EOF_RECEIVED));
    int keep_open = keep != NULL ? PyObject_IsTrue(keep) : -1;
    bool failed = keep == NULL;
    Py_XDECREF(keep);
    Py_DECREF(protocol);
    if (failed) {
        return stream_fail(self, "Fatal error: protocol.eof_received() call failed.");
    }
    if (keep_open < 0) {
        return -1;
    }
    /* Only writing goes on: a read would return the end, again and again. */
    return keep_open ? stream_unwatch(self, false) : status_of(stream_close((PyObject *)self, NULL));
}

/* Handle a recv() that returned no data. */
int
stream_nothing_received(Stream *self, ssize_t count, int error)
{
    if (count == 0) {
        return end_of_stream(self);
    }
    if (would_block(error)) {
        return 0;
    }
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return stream_fail(self, read_error);
}

/* Pass data to the protocol; takes over the reference. */
static int
deliver_data(Stream *self, PyObject *data)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodOneArg(protocol, stream_name(self, NAME_DATA_RECEIVED), data);
    Py_DECREF(protocol);
    Py_DECREF(data);
    return result != NULL ? status_of(result) : stream_fail(self, delivery_error);
}

/* By the method of a socket of another class. */
static int
read_by_method(Stream *self)
{
    PyObject *size = PyLong_FromSsize_t(self->max_size);
    PyObject *data = size != NULL ? PyObject_CallMethodOneArg(self->sock, stream_name(self, NAME_RECV), size)
                                  : NULL;
    Py_XDECREF(size);
    Py_ssize_t length = data != NULL ? PyObject_Size(data) : -1;
    if (length < 0) {
        Py_XDECREF(data);
        if (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
            PyErr_Clear();
            return 0;
        }
        return stream_fail(self, read_error);
    }
    if (length == 0) {
        Py_DECREF(data);
        return end_of_stream(self);
    }
    return deliver_data(self, data);
}

/* At most so much is received for an event. */
static size_t
size_limit(const Stream *self)
{
    return self->max_size < SHARED_SIZE ? (size_t)self->max_size : SHARED_SIZE;
}

/* Choose the size of the next object by how much this one was filled: one that is too large wastes memory,
 * one that is too small costs a turn. */
static void
adapt_bulk_size(Stream *self, size_t size, size_t count)
{
    bool is_short = count < size / 2;
    self->short_reads = is_short ? self->short_reads + 1 : 0;
    if (count == size) {
        self->bulk_size = Py_MIN(2 * size, SHARED_SIZE);
    }
    else if (self->short_reads == SHORT_READS) {
        self->short_reads = 0;
        self->bulk_size = size / 2 > BULK_FROM ? size / 2 : 0;
    }
}

/* Make the object as large as the data, its first `count` bytes. With much data it keeps its memory: a copy
 * would take a tenth of the time of all, realloc() a twentieth. Takes over the reference, and returns one;
 * NULL with MemoryError. */
static PyObject *
cut_bytes(PyObject *data, size_t count)
{
    if (count < BULK_FROM) {
        Py_SETREF(data, PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), (Py_ssize_t)count));
    }
    else {
        Py_SET_SIZE(data, (Py_ssize_t)count);
        PyBytes_AS_STRING(data)[count] = '\0';
    }
    return data;
}

/* Straight into the object that the protocol gets. To ask first how much data waits, by FIONREAD, would take
 * a twentieth of the time of all. */
static int
read_bulk(Stream *self, int fd)
{
    size_t size = Py_MIN(self->bulk_size, size_limit(self));
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (data == NULL) {
        return stream_fail(self, read_error);
    }
    ssize_t count = recv(fd, PyBytes_AS_STRING(data), size, MSG_DONTWAIT);
    int error = errno;
    adapt_bulk_size(self, size, (size_t)Py_MAX(count, 0));
    if (count <= 0) {
        Py_DECREF(data);
        return stream_nothing_received(self, count, error);
    }
    data = cut_bytes(data, (size_t)count);
    return data != NULL ? deliver_data(self, data) : stream_fail(self, read_error);
}

/* Into the buffer that all transports share, from which the protocol gets a copy of the right size. */
static int
read_small(Stream *self, int fd)
{
    StreamState *state = stream_state(self);
    char *buffer = atomic_exchange(&state->spare, NULL);
    if (buffer == NULL && (buffer = PyMem_Malloc(SHARED_SIZE)) == NULL) {
        PyErr_NoMemory();
        return stream_fail(self, read_error);
    }
    ssize_t count = recv(fd, buffer, size_limit(self), MSG_DONTWAIT);
    int error = errno;
    int fed = count > 0 ? stream_feed(self, buffer, count) : 0;
    PyObject *data = count > 0 && fed == 0 ? PyBytes_FromStringAndSize(buffer, count) : NULL;
    PyMem_Free(atomic_exchange(&state->spare, buffer));
    self->bulk_size = count >= BULK_FROM ? SHARED_SIZE : 0;
    if (count <= 0) {
        return stream_nothing_received(self, count, error);
    }
    if (fed != 0) {
        return fed > 0 ? 0 : stream_fail(self, delivery_error);
    }
    return data != NULL ? deliver_data(self, data) : stream_fail(self, read_error);
}

static int
read_ready(Stream *self)
{
    if (self->conn_lost > 0 || !is_given(self->protocol)) {
        return 0;
    }
    if (self->buffered) {
        return stream_read_to_buffer(self);
    }
    int fd = stream_open_fd(self);
    if (fd < 0 || self->max_size <= 0) {
        return read_by_method(self);
    }
    return self->bulk_size > 0 ? read_bulk(self, fd) : read_small(self, fd);
}

PyObject *
transport_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_or_error(read_ready((Stream *)self));
}

static bool
is_reading(const Stream *self)
{
    return !self->closing && !self->paused;
}

PyObject *
stream_start_reading(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    return none_or_error(is_reading(self) ? stream_watch(self, false) : 0);
}

PyObject *
stream_pause_reading(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (!is_reading(self)) {
        Py_RETURN_NONE;
    }
    self->paused = 1;
    return none_or_error(stream_unwatch(self, false) == 0 ? stream_log(self, "%r pauses reading") : -1);
}

PyObject *
stream_resume_reading(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (self->closing || !self->paused) {
        Py_RETURN_NONE;
    }
    self->paused = 0;
    return none_or_error(stream_watch(self, false) == 0 ? stream_log(self, "%r resumes reading") : -1);
}
