/*
 * The two paths of a socket transport that a server spends its time on: data has arrived, and data is to be
 * sent at once. All unusual cases are left to the methods of asyncio's own transport, of which ours is a
 * subclass: they see the same state, since C reads it in their attributes and never changes it.
 *
 * The system calls are made with the GIL held: they do not block, and to release it costs more than a short
 * one takes. Between reading the fd and the call no other code can run that would close it; on a
 * free-threaded build that holds as long as no other thread closes the socket, which asyncio forbids.
 */
#include "aio/state.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

/* As much as asyncio asks for at a time. */
enum { RECEIVE_MAX = 256 * 1024 };

/* A send of more than this lets other threads run. */
enum { SEND_HELD_MAX = 64 * 1024 };

static PyObject *
attribute(const AioState *state, PyObject *self, int index)
{
    return aio_slot(self, state->offsets[index]);
}

/* The value of an int from 0 to INT_MAX; -1 for anything else. Sets no exception. */
static int
number_of(PyObject *object)
{
    int overflow = 0;
    long number = object != NULL && PyLong_CheckExact(object) ? PyLong_AsLongAndOverflow(object, &overflow)
                                                              : -1;
    return overflow == 0 && number >= 0 && number <= INT_MAX ? (int)number : -1;
}

/* Whether the transport has lost its connection, or may have. */
static bool
has_lost(const AioState *state, PyObject *self)
{
    return number_of(attribute(state, self, CONN_LOST)) != 0;
}

/* The fd of the transport's socket, if C may use it: the socket is open, and not of a subclass, which may
 * have methods of its own. -1 otherwise. */
static int
open_fd(const AioState *state, PyObject *self)
{
    PyObject *sock = attribute(state, self, SOCK);
    bool plain = sock != NULL && Py_IS_TYPE(sock, state->socket_type);
    return plain && aio_slot(sock, state->closed_offset) == Py_False
               ? number_of(attribute(state, self, SOCK_FD))
               : -1;
}

/* None in place of a result that is not needed; takes over the reference. */
static PyObject *
none_for(PyObject *result)
{
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* Handle the exception that is set as asyncio does: it ends the connection. */
static PyObject *
fatal_error(const AioState *state, PyObject *self, const char *message)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromString(message);
    PyObject *args[] = {self, error, text};
    PyObject *result = text != NULL ? PyObject_VectorcallMethod(state->methods[FAILED], args, 3, NULL) : NULL;
    Py_XDECREF(text);
    Py_DECREF(error);
    return none_for(result);
}

static bool
would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* The result of one recv() or send(). */
typedef struct {
    ssize_t count; /* of recv(), 0 is the end of the stream */
    int error;     /* where `count` is below 0 */
} IoResult;

static IoResult
receive(int fd, void *buffer, size_t size)
{
    ssize_t count = recv(fd, buffer, size, MSG_DONTWAIT);
    return (IoResult){count, errno};
}

/* Handle a recv() that returned no data. */
static PyObject *
nothing_received(const AioState *state, PyObject *self, IoResult received)
{
    if (received.count == 0) {
        return none_for(PyObject_CallMethodNoArgs(self, state->methods[ON_EOF]));
    }
    if (would_block(received.error)) {
        Py_RETURN_NONE;
    }
    errno = received.error;
    PyErr_SetFromErrno(PyExc_OSError);
    return fatal_error(state, self, "Fatal read error on socket transport");
}

/* Receive into the buffer that all transports share, and pass on a copy of the right size. */
static PyObject *
read_to_protocol(AioState *state, PyObject *self, PyObject *protocol, int fd)
{
    char *buffer = atomic_exchange(&state->spare, NULL);
    if (buffer == NULL && (buffer = PyMem_Malloc(RECEIVE_MAX)) == NULL) {
        PyErr_NoMemory();
        return fatal_error(state, self, "Fatal read error on socket transport");
    }
    IoResult received = receive(fd, buffer, RECEIVE_MAX);
    PyObject *data = received.count > 0 ? PyBytes_FromStringAndSize(buffer, received.count) : NULL;
    PyMem_Free(atomic_exchange(&state->spare, buffer));
    if (received.count <= 0) {
        return nothing_received(state, self, received);
    }
    if (data == NULL) {
        return fatal_error(state, self, "Fatal read error on socket transport");
    }
    PyObject *result = PyObject_CallMethodOneArg(protocol, state->methods[DATA_RECEIVED], data);
    Py_DECREF(data);
    return result != NULL ? none_for(result)
                          : fatal_error(state, self, "Fatal error: protocol.data_received() call failed.");
}

static PyObject *
buffer_updated(const AioState *state, PyObject *protocol, ssize_t received)
{
    PyObject *count = PyLong_FromSsize_t(received);
    PyObject *result = count != NULL ? PyObject_CallMethodOneArg(protocol != NULL ? protocol : Py_None,
                                                                 state->methods[BUFFER_UPDATED], count)
                                     : NULL;
    Py_XDECREF(count);
    return result;
}

/* Receive into the buffer that the protocol gives. */
static PyObject *
read_to_buffer(AioState *state, PyObject *self, PyObject *protocol, int Py_UNUSED(before))
{
    static const char *const no_buffer = "Fatal error: protocol.get_buffer() call failed.";
    PyObject *buffer = PyObject_CallMethodOneArg(protocol, state->methods[GET_BUFFER], state->minus_one);
    Py_ssize_t length = buffer != NULL ? PyObject_Size(buffer) : -1;
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    if (length <= 0) {
        Py_XDECREF(buffer);
        return fatal_error(state, self, no_buffer);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        /* In the words of socket.recv_into(). */
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.50s",
                     Py_TYPE(buffer)->tp_name);
        Py_DECREF(buffer);
        return fatal_error(state, self, "Fatal read error on socket transport");
    }
    Py_DECREF(buffer);
    /* Python code has run: the socket may be closed, its fd reused, and the protocol replaced. */
    int fd = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    fd = open_fd(state, self);
    protocol = Py_XNewRef(attribute(state, self, PROTOCOL));
    Py_END_CRITICAL_SECTION();
    IoResult received = fd >= 0 ? receive(fd, view.buf, (size_t)view.len) : (IoResult){-1, EBADF};
    PyBuffer_Release(&view);
    PyObject *result = received.count > 0 ? buffer_updated(state, protocol, received.count) : NULL;
    Py_XDECREF(protocol);
    if (received.count <= 0) {
        return nothing_received(state, self, received);
    }
    return result != NULL ? none_for(result)
                          : fatal_error(state, self, "Fatal error: protocol.buffer_updated() call failed.");
}

typedef PyObject *(*Reader)(AioState *, PyObject *, PyObject *, int);

/* The reader for the protocol of the transport, or NULL. asyncio keeps a method of the transport in
 * _read_ready_cb: it shows the kind of protocol. */
static Reader
reader_for(const AioState *state, PyObject *self)
{
    PyObject *method = attribute(state, self, READ_READY_CB);
    if (method == NULL || !PyMethod_Check(method) || PyMethod_GET_SELF(method) != self) {
        return NULL;
    }
    PyObject *function = PyMethod_GET_FUNCTION(method);
    return function == state->inherited[READ_TO_PROTOCOL] ? read_to_protocol
           : function == state->inherited[READ_TO_BUFFER] ? read_to_buffer
                                                          : NULL;
}

PyDoc_STRVAR(read_ready_doc,
"_read_ready($self, /)\n--\n\n"
"The socket is readable: receive once, and pass the data to the protocol.");

PyObject *
transport_read_ready(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioState *state = aio_state_of(Py_TYPE(self));
    if (state == NULL) {
        return NULL;
    }
    Reader reader = NULL;
    PyObject *protocol = NULL;
    int fd = -1;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!has_lost(state, self) && (reader = reader_for(state, self)) != NULL) {
        fd = open_fd(state, self);
        protocol = Py_XNewRef(attribute(state, self, PROTOCOL));
    }
    Py_END_CRITICAL_SECTION();
    PyObject *result = protocol != NULL && fd >= 0 ? reader(state, self, protocol, fd)
                                                   : PyObject_CallOneArg(state->inherited[READ_READY], self);
    Py_XDECREF(protocol);
    return result;
}

/* Whether a lost connection raises SIGPIPE is up to the program: Python itself ignores it. */
static IoResult
send_some(int fd, const char *data, Py_ssize_t size)
{
    ssize_t count = send(fd, data, (size_t)size, MSG_DONTWAIT);
    return (IoResult){count, errno};
}

static IoResult
send_now(int fd, const char *data, Py_ssize_t size)
{
    if (size <= SEND_HELD_MAX) {
        return send_some(fd, data, size);
    }
    IoResult sent;
    Py_BEGIN_ALLOW_THREADS
    sent = send_some(fd, data, size);
    Py_END_ALLOW_THREADS
    return sent;
}

/* All but the first `sent` bytes of `data`. A new reference. */
static PyObject *
rest_of(PyObject *data, ssize_t sent)
{
    if (sent <= 0) {
        return Py_NewRef(data);
    }
    PyObject *view = PyMemoryView_FromObject(data);
    PyObject *rest = view != NULL ? PySequence_GetSlice(view, sent, PY_SSIZE_T_MAX) : NULL;
    Py_XDECREF(view);
    return rest;
}

/* The fd, if the transport may send at once because nothing is waiting to be sent; -1 otherwise. */
static int
fd_to_send(const AioState *state, PyObject *self)
{
    int fd = -1;
    PyObject *buffer = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (attribute(state, self, EOF_WRITTEN) == Py_False && attribute(state, self, EMPTY_WAITER) == Py_None &&
        !has_lost(state, self)) {
        fd = open_fd(state, self);
        buffer = Py_XNewRef(attribute(state, self, BUFFER));
    }
    Py_END_CRITICAL_SECTION();
    if (fd >= 0 && (buffer == NULL || PyObject_Size(buffer) != 0)) {
        PyErr_Clear();
        fd = -1;
    }
    Py_XDECREF(buffer);
    return fd;
}

PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Send data; keep the part that the socket does not accept now, and send it later.\n\n"
"data: bytes, bytearray or memoryview. Raises TypeError for anything else, and RuntimeError after\n"
"write_eof() and while loop.sendfile() is at work. See asyncio.WriteTransport.write().");

static PyObject *
write_data(const AioState *state, PyObject *self, PyObject *data)
{
    Py_ssize_t size = PyBytes_CheckExact(data) ? PyBytes_GET_SIZE(data) : 0;
    int fd = size > 0 ? fd_to_send(state, self) : -1;
    IoResult sent = fd >= 0 ? send_now(fd, PyBytes_AS_STRING(data), size) : (IoResult){0, 0};
    if (sent.count < 0 && !would_block(sent.error)) {
        errno = sent.error;
        PyErr_SetFromErrno(PyExc_OSError);
        return fatal_error(state, self, "Fatal write error on socket transport");
    }
    if (size > 0 && sent.count == size) {
        Py_RETURN_NONE;
    }
    PyObject *rest = rest_of(data, sent.count);
    PyObject *args[] = {self, rest};
    PyObject *result = rest != NULL ? PyObject_Vectorcall(state->inherited[WRITE], args, 2, NULL) : NULL;
    Py_XDECREF(rest);
    return result;
}

static PyObject *
transport_write(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const AioState *state = aio_state_of(Py_TYPE(self));
    if (state == NULL) {
        return NULL;
    }
    if (count == 1 && names == NULL) {
        return write_data(state, self, args[0]);
    }
    /* Given by keyword, or wrong. */
    PyObject *method = PyMethod_New(state->inherited[WRITE], self);
    PyObject *result = method != NULL ? PyObject_Vectorcall(method, args, (size_t)count, names) : NULL;
    Py_XDECREF(method);
    return result;
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

/* Copied into the subclass: see base/subclass.h. */
PyMethodDef transport_methods[] = {
    {"_read_ready", transport_read_ready, METH_NOARGS, read_ready_doc},
    {"write", FAST(transport_write), write_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(transport_doc,
"The base of pyepoll.aio's socket transport: it has no state, but leads to this module.");

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)transport_doc},
    {0,         NULL                 },
};

PyType_Spec transport_spec = {
    .name = "pyepoll._epoll.SocketTransport",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = transport_slots,
};
