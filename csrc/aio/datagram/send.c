/* transport.sendto(). */
#include "aio/datagram/datagram.h"

#include <errno.h>

/* Where a datagram goes; the objects are new references. */
typedef struct {
    PyObject *sock;
    PyObject *protocol;
    PyObject *address; /* as Python has it */
    SockAddr to;       /* its length is 0 on a connected socket */
} Sending;

/* The address for the kernel; false if Python must see to it. */
static bool
find_destination(const Datagram *self, Sending *sending)
{
    sending->to.length = 0;
    if (self->socket.connected) {
        return true;
    }
    if (sending->address == self->sender.object) {
        sending->to = self->sender.raw;
        return sending->to.length > 0;
    }
    return sockaddr_from_python(sending->address, self->socket.family, &sending->to);
}

/* Whether the datagram may be sent at once from C; only then `sending` is filled. */
static bool
start_sending(const DatagramState *state, Datagram *self, PyObject *address, Sending *sending)
{
    bool here = false;
    Py_BEGIN_CRITICAL_SECTION(self);
    PyObject *own = self->address != NULL ? self->address : Py_None;
    sending->address = address == Py_None ? own : address;
    here = self->queue.size == 0 && self->state.conn_lost == 0 && self->protocol != NULL &&
           datagram_is_plain(state, self) && (own == Py_None || sending->address == own) &&
           find_destination(self, sending);
    if (here) {
        Py_INCREF(sending->address);
        sending->sock = Py_NewRef(self->sock);
        sending->protocol = Py_NewRef(self->protocol);
    }
    Py_END_CRITICAL_SECTION();
    return here;
}

/* Tell an audit hook, as socket.sendto() does; socket.send() reports nothing. 0, or -1 with an exception. */
static int
audit_sending(const Sending *sending)
{
    return sending->to.length > 0 ? PySys_Audit("socket.sendto", "OO", sending->sock, sending->address) : 0;
}

/* Send, or keep the datagram until the socket is writable. */
static PyObject *
send_here(const DatagramState *state, Datagram *self, PyObject *data, const Py_buffer *view,
          const Sending *sending)
{
    if (audit_sending(sending) < 0) {
        return datagram_fail(state, (PyObject *)self, "Fatal write error on datagram transport");
    }
    const struct sockaddr *to = sending->to.length > 0 ? &sending->to.any : NULL;
    /* The hook, or the class of the data, may have closed the socket: then this is EBADF. */
    int fd = datagram_is_plain(state, self) ? self->socket.fd : -1;
    if (sendto(fd, view->buf, (size_t)view->len, MSG_DONTWAIT, to, sending->to.length) >= 0) {
        Py_RETURN_NONE;
    }
    if (!would_block(errno)) {
        return datagram_report(state, sending->protocol, errno);
    }
    PyObject *args[] = {(PyObject *)self, data, sending->address};
    return PyObject_VectorcallMethod(state->names[KEEP], args, 3, NULL);
}

static PyObject *
send_slowly(const DatagramState *state, PyObject *self, PyObject *const *args, Py_ssize_t count,
            PyObject *names)
{
    PyObject *method = PyObject_GetAttr(self, state->names[SEND_SLOWLY]);
    PyObject *result = method != NULL ? PyObject_Vectorcall(method, args, (size_t)count, names) : NULL;
    Py_XDECREF(method);
    return result;
}

PyObject *
datagram_sendto(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Datagram *self = (Datagram *)object;
    const DatagramState *state = datagram_state(object);
    if (state == NULL) {
        return NULL;
    }
    PyObject *data = count > 0 ? args[0] : Py_None;
    bool usual = names == NULL && count <= 2 &&
                 (PyBytes_Check(data) || PyByteArray_Check(data) || PyMemoryView_Check(data));
    Sending sending;
    if (!usual || !start_sending(state, self, count == 2 ? args[1] : Py_None, &sending)) {
        return send_slowly(state, object, args, count, names);
    }
    Py_buffer view;
    PyObject *result;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        result = datagram_fail(state, object, "Fatal write error on datagram transport");
    }
    else {
        result = send_here(state, self, data, &view, &sending);
        PyBuffer_Release(&view);
    }
    Py_DECREF(sending.sock);
    Py_DECREF(sending.protocol);
    Py_DECREF(sending.address);
    return result;
}
