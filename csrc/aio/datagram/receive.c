/* A datagram socket is readable. The system calls are made with the GIL held: they do not block. */
#include "aio/datagram/datagram.h"

#include <errno.h>

/* So many datagrams are received for one event, before other connections have their turn. */
enum { BURST = 16 };

/* After an event with a single datagram, so many events receive one each: most datagrams come alone, and the
 * recvfrom() that finds no second one costs a system call. */
enum { LONE_EVENTS = 7 };

/* The needs of receiving one datagram; `protocol` is a new reference. */
typedef struct {
    PyObject *protocol;
    size_t max_size;
    int fd;
} Reading;

enum { READ_STOPPED, READ_HERE, READ_ELSEWHERE };

/* See whether the transport still reads: since the last datagram, Python code has run. */
static int
start_reading(const DatagramState *state, Datagram *self, Reading *reading)
{
    int status = READ_STOPPED;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->state.conn_lost == 0 && !self->state.closing && !self->state.paused && self->protocol != NULL) {
        status = datagram_is_plain(state, self) ? READ_HERE : READ_ELSEWHERE;
    }
    if (status == READ_HERE) {
        bool usual = self->socket.max_size > 0 && self->socket.max_size <= DATAGRAM_MAX;
        *reading = (Reading){Py_NewRef(self->protocol), usual ? (size_t)self->socket.max_size : DATAGRAM_MAX,
                             self->socket.fd};
    }
    Py_END_CRITICAL_SECTION();
    return status;
}

/* Receive into the buffer that all transports share, and copy. The bytes; NULL with an exception, or with an
 * errno in `error`. */
static PyObject *
receive_bytes(DatagramState *state, const Reading *reading, SockAddr *from, int *error)
{
    char *buffer = atomic_exchange(&state->spare, NULL);
    if (buffer == NULL && (buffer = PyMem_Malloc(DATAGRAM_MAX)) == NULL) {
        return PyErr_NoMemory();
    }
    from->length = sizeof(from->v6);
    ssize_t size = recvfrom(reading->fd, buffer, reading->max_size, MSG_DONTWAIT, &from->any, &from->length);
    *error = size < 0 ? errno : 0;
    PyObject *data = size >= 0 ? PyBytes_FromStringAndSize(buffer, size) : NULL;
    PyMem_Free(atomic_exchange(&state->spare, buffer));
    return data;
}

/* The sender's address as Python has it: the same object as last time if it is the same sender. */
static PyObject *
sender_of(Datagram *self, const SockAddr *from)
{
    PyObject *object = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->sender.object != NULL && self->sender.raw.length == from->length &&
        memcmp(&self->sender.raw.any, &from->any, from->length) == 0) {
        object = Py_NewRef(self->sender.object);
    }
    Py_END_CRITICAL_SECTION();
    if (object != NULL || (object = sockaddr_to_python(from)) == NULL) {
        return object;
    }
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(self);
    before = self->sender.object;
    self->sender.object = Py_NewRef(object);
    self->sender.raw = *from;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return object;
}

static PyObject *
deliver_datagram(const DatagramState *state, Datagram *self, PyObject *protocol, PyObject *data,
                 const SockAddr *from)
{
    PyObject *sender = sender_of(self, from);
    if (sender == NULL) {
        return datagram_fail(state, (PyObject *)self, "Fatal read error on datagram transport");
    }
    PyObject *args[] = {protocol, data, sender};
    PyObject *result = PyObject_VectorcallMethod(state->names[DATAGRAM_RECEIVED], args, 3, NULL);
    Py_DECREF(sender);
    return none_or_error(status_of(result));
}

/* Receive one datagram. None; NULL with an exception; `more` says whether there may be another. */
static PyObject *
receive_one(DatagramState *state, Datagram *self, const Reading *reading, bool *more)
{
    SockAddr from;
    int error = 0;
    PyObject *data = receive_bytes(state, reading, &from, &error);
    *more = data != NULL;
    if (data != NULL) {
        PyObject *result = deliver_datagram(state, self, reading->protocol, data, &from);
        Py_DECREF(data);
        return result;
    }
    if (would_block(error)) {
        Py_RETURN_NONE;
    }
    return error != 0 ? datagram_report(state, reading->protocol, error)
                      : datagram_fail(state, (PyObject *)self, "Fatal read error on datagram transport");
}

PyObject *
datagram_read_ready(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Datagram *self = (Datagram *)object;
    DatagramState *state = datagram_state(object);
    PyObject *result = state != NULL ? Py_NewRef(Py_None) : NULL;
    bool more = true;
    for (int i = 0; result != NULL && more && i < BURST; i++) {
        if (i == 1 && self->lone > 0) {
            self->lone--;
            return result;
        }
        Reading reading;
        int status = start_reading(state, self, &reading);
        if (status == READ_STOPPED) {
            return result;
        }
        Py_DECREF(result);
        if (status == READ_ELSEWHERE) {
            return PyObject_CallMethodNoArgs(object, state->names[READ_SLOWLY]);
        }
        result = receive_one(state, self, &reading, &more);
        Py_DECREF(reading.protocol);
        if (i == 1 && !more) {
            self->lone = LONE_EVENTS;
        }
    }
    return result;
}
