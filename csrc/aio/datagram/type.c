/* The type of datagram transports, and what its methods share. */
#include "aio/datagram/datagram.h"

#include <errno.h>
#include <structmember.h>

DatagramState *
datagram_state(PyObject *self)
{
    AioState *state = aio_state_of(Py_TYPE(self));
    return state != NULL ? &state->datagram : NULL;
}

/* Whether C may use the fd: the socket is open, and not of a subclass, which may have methods of its own. */
bool
datagram_is_plain(const DatagramState *state, const Datagram *self)
{
    return (self->socket.family == AF_INET || self->socket.family == AF_INET6) && self->sock != NULL &&
           Py_IS_TYPE(self->sock, state->socket_type) &&
           aio_slot(self->sock, state->closed_offset) == Py_False;
}

/* Pass an OSError to the protocol. */
PyObject *
datagram_report(const DatagramState *state, PyObject *protocol, int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(protocol, state->names[ERROR_RECEIVED], raised);
    Py_DECREF(raised);
    return none_or_error(status_of(result));
}

/* Handle the exception that is set as asyncio does: it closes the transport. */
PyObject *
datagram_fail(const DatagramState *state, PyObject *self, const char *message)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromString(message);
    PyObject *args[] = {self, error, text};
    PyObject *result = text != NULL ? PyObject_VectorcallMethod(state->names[DATAGRAM_FAILED], args, 3, NULL)
                                    : NULL;
    Py_XDECREF(text);
    Py_DECREF(error);
    return none_or_error(status_of(result));
}

PyDoc_STRVAR(read_ready_doc,
"_read_ready($self, /)\n--\n\n"
"The socket is readable: receive some datagrams, and pass them to the protocol.");

PyDoc_STRVAR(sendto_doc,
"sendto($self, /, data, addr=None)\n--\n\n"
"Send a datagram, or keep a copy until the socket accepts it.\n\n"
"data: bytes, bytearray or memoryview; may be empty. addr: the destination; None for the transport's\n"
"remote_addr. An OSError is passed to the protocol's error_received(). Raises TypeError for other data, and\n"
"ValueError for an address that is not the transport's remote_addr. See asyncio.DatagramTransport.sendto().");

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)

static PyMethodDef methods[] = {
    {"_read_ready", datagram_read_ready,                          METH_NOARGS,   read_ready_doc},
    {"sendto",      (PyCFunction)(void (*)(void))datagram_sendto, FAST_KEYWORDS, sendto_doc    },
    {NULL,          NULL,                                         0,             NULL          },
};

#define MEMBER(name, type, field) {name, type, offsetof(Datagram, field), 0, NULL}

/* For the methods in Python. Those that asyncio's transport has are called as there. */
static PyMemberDef members[] = {
    MEMBER("_sock", T_OBJECT, sock),
    MEMBER("_protocol", T_OBJECT, protocol),
    MEMBER("_address", T_OBJECT, address),
    MEMBER("_buffer_size", T_PYSSIZET, queue.size),
    MEMBER("_sock_fd", T_INT, socket.fd),
    MEMBER("_family", T_INT, socket.family),
    MEMBER("_connected", T_BOOL, socket.connected),
    MEMBER("_conn_lost", T_PYSSIZET, state.conn_lost),
    MEMBER("_closing", T_BOOL, state.closing),
    MEMBER("_paused", T_BOOL, state.paused),
    MEMBER("max_size", T_PYSSIZET, socket.max_size),
    {NULL, 0, 0, 0, NULL},
};

static int
datagram_type_traverse(PyObject *object, visitproc visit, void *arg)
{
    Datagram *self = (Datagram *)object;
    Py_VISIT(Py_TYPE(object));
    for (int i = 0; i < INHERITED_SLOTS; i++) {
        Py_VISIT(self->inherited[i]);
    }
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol);
    Py_VISIT(self->address);
    Py_VISIT(self->sender.object);
    return 0;
}

static int
datagram_type_clear(PyObject *object)
{
    Datagram *self = (Datagram *)object;
    for (int i = 0; i < INHERITED_SLOTS; i++) {
        Py_CLEAR(self->inherited[i]);
    }
    Py_CLEAR(self->sock);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->address);
    Py_CLEAR(self->sender.object);
    return 0;
}

static void
datagram_type_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    datagram_type_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(datagram_doc,
"The base of pyepoll.aio's datagram transport: its state, and the methods that run for each datagram.");

static PyType_Slot slots[] = {
    {Py_tp_doc,      (void *)datagram_doc  },
    {Py_tp_methods,  methods               },
    {Py_tp_members,  members               },
    {Py_tp_traverse, datagram_type_traverse},
    {Py_tp_clear,    datagram_type_clear   },
    {Py_tp_dealloc,  datagram_type_dealloc },
    {0,              NULL                  },
};

PyType_Spec datagram_spec = {
    .name = "pyepoll._epoll.DatagramTransport",
    .basicsize = sizeof(Datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
