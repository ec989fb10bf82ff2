/* SocketTransport: made by the loop for each connection of a stream socket. Its type derives from asyncio's
 * classes, whose methods see the same state. */
#include "aio/stream/stream.h"
#include "aio/weak_dict.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

enum { MAX_SIZE = 256 * 1024 };

PyObject *
stream_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    ModuleState *module = module_state_of(type);
    if (module == NULL || module->aio == NULL) {
        return NULL;
    }
    Stream *self = (Stream *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = module_hold(module);
    queue_init(&self->queue);
    self->max_size = MAX_SIZE;
    self->fd = -1;
    /* Until __init__, methods find a connection that is lost. */
    self->conn_lost = self->closing = 1;
    self->protocol_paused = Py_NewRef(Py_False);
    self->low_water = Py_NewRef(stream_state(self)->low_water);
    self->high_water = Py_NewRef(stream_state(self)->high_water);
    return (PyObject *)self;
}

int
stream_set_protocol_now(Stream *self, PyObject *protocol)
{
    int buffered = PyObject_IsInstance(protocol, stream_state(self)->buffered);
    if (buffered < 0) {
        return -1;
    }
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    self->buffered = buffered != 0;
    return 0;
}

/* Small writes are sent without waiting for acknowledgements, as asyncio has it. 0, or -1 with an
 * exception. A mock's attribute may be anything. */
static int
set_nodelay(Stream *self)
{
    PyObject *proto = PyObject_GetAttr(self->sock, stream_name(self, NAME_PROTO));
    if (proto == NULL) {
        return -1;
    }
    int overflow, on = 1;
    if (PyLong_Check(proto) && PyLong_AsLongAndOverflow(proto, &overflow) == IPPROTO_TCP) {
        (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    Py_DECREF(proto);
    return 0;
}

/* The fields that tell of the socket and the loop. 0, or -1 with an exception. */
static int
set_connection(Stream *self, PyObject *loop, PyObject *sock, PyObject *extra, PyObject *context)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, stream_name(self, NAME_FILENO));
    long fd = number != NULL ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    self->fd = (int)fd;
    self->context_given = context != Py_None;
    Py_XSETREF(self->context, context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent());
    Py_XSETREF(self->loop, Py_NewRef(loop));
    Py_XSETREF(self->sock, Py_NewRef(sock));
    PyObject *writes = NULL;
    if (self->context == NULL || stream_set_extra(self, extra) < 0) {
        return -1;
    }
    writes = PyObject_GetAttr(loop, stream_name(self, NAME_PENDING_WRITES));
    if (writes == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    if (writes != NULL && !Py_IS_TYPE(writes, stream_state(self)->writes_type)) {
        Py_CLEAR(writes);
    }
    Py_XSETREF(self->writes, (PendingWrites *)writes);
    return 0;
}

/* 0; -1 with an exception, of a server that was closed meanwhile: then the transport is none, and its socket
 * the caller's. */
static int
attach_to_server(Stream *self, PyObject *server)
{
    if (server != Py_None) {
#if PY_VERSION_HEX >= 0x030D0000
        PyObject *result = PyObject_CallMethodOneArg(server, stream_name(self, NAME_ATTACH),
                                                     (PyObject *)self);
#else
        PyObject *result = PyObject_CallMethodNoArgs(server, stream_name(self, NAME_ATTACH));
#endif
        if (status_of(result) < 0) {
            self->conn_lost = self->closing = self->gone = 1;
            return -1;
        }
    }
    Py_XSETREF(self->server, Py_NewRef(server));
    return 0;
}

/* Tell the server, and register the transport with the loop. 0, or -1 with an exception. */
static int
attach(Stream *self, PyObject *server)
{
    if (attach_to_server(self, server) < 0) {
        return -1;
    }
    const FdsState *fds = &self->module->aio->fds;
    PyObject *transports = PyObject_GetAttr(self->loop, fds->names[FDS_TRANSPORTS]);
    PyObject *fd = PyLong_FromLong(self->fd);
    int status = transports != NULL && fd != NULL ? weak_set(fds, transports, fd, (PyObject *)self) : -1;
    Py_XDECREF(transports);
    Py_XDECREF(fd);
    return status;
}

/* connection_made(), then reading, then the waiter: in turns of their own, as asyncio has it. */
static int
schedule_start(Stream *self, PyObject *waiter)
{
    PyObject *made = PyObject_GetAttr(self->protocol, stream_name(self, NAME_CONNECTION_MADE));
    int status = made != NULL ? stream_call_soon(self, made, (PyObject *)self, NULL) : -1;
    Py_XDECREF(made);
    if (status == 0) {
        status = stream_call_soon_self(self, NAME_START_READING, NULL);
    }
    if (status < 0 || waiter == Py_None) {
        return status;
    }
    return stream_call_soon(self, stream_state(self)->set_result, waiter, Py_None);
}

enum { LOOP, SOCK, PROTOCOL, WAITER, EXTRA, SERVER, CONTEXT, ARGUMENTS };

/* False with an exception. */
static bool
parse_init(PyObject *args, PyObject *kwargs, PyObject **given)
{
    static char *names[] = {"loop", "sock", "protocol", "waiter", "extra", "server", "context", NULL};
    for (int i = WAITER; i < ARGUMENTS; i++) {
        given[i] = Py_None;
    }
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == ARGUMENTS) { /* as the loop calls it: not slowly */
        for (int i = 0; i < ARGUMENTS; i++) {
            given[i] = PyTuple_GET_ITEM(args, i);
        }
        return true;
    }
    return PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOOO:SocketTransport", names, &given[LOOP],
                                       &given[SOCK], &given[PROTOCOL], &given[WAITER], &given[EXTRA],
                                       &given[SERVER], &given[CONTEXT]) != 0;
}

int
stream_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Stream *self = (Stream *)object;
    PyObject *given[ARGUMENTS];
    if (!parse_init(args, kwargs, given)) {
        return -1;
    }
    if (self->loop != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "SocketTransport.__init__() may be called once only");
        return -1;
    }
    if (set_connection(self, given[LOOP], given[SOCK], given[EXTRA], given[CONTEXT]) < 0 ||
        stream_set_protocol_now(self, given[PROTOCOL]) < 0) {
        return -1;
    }
    self->conn_lost = self->closing = 0;
    return attach(self, given[SERVER]) == 0 && set_nodelay(self) == 0 ? schedule_start(self, given[WAITER])
                                                                      : -1;
}

int
stream_traverse(PyObject *object, visitproc visit, void *arg)
{
    Stream *self = (Stream *)object;
    Py_VISIT(Py_TYPE(self));
    if (self->module != NULL) {
        Py_VISIT(self->module->object);
    }
    PyObject *const fields[] = {
        self->extra,
        self->loop,
        self->dict,
        self->sock,
        self->protocol,
        self->context,
        self->server,
        self->sockname,
        self->peername,
        self->transport_socket,
        self->sendfile,
        self->empty_waiter,
        (PyObject *)self->writes,
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        Py_VISIT(fields[i]);
    }
    return 0;
}

int
stream_clear(PyObject *object)
{
    Stream *self = (Stream *)object;
    Py_CLEAR(self->extra);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->server);
    Py_CLEAR(self->sockname);
    Py_CLEAR(self->peername);
    Py_CLEAR(self->transport_socket);
    Py_CLEAR(self->sendfile);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->writes);
    /* Methods that still run find a connection that is lost. */
    self->conn_lost = self->closing = self->gone = 1;
    return 0;
}

void
stream_dealloc(PyObject *object)
{
    Stream *self = (Stream *)object;
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    stream_clear(object);
    Py_CLEAR(self->high_water);
    Py_CLEAR(self->low_water);
    Py_CLEAR(self->protocol_paused);
    queue_clear(&self->queue);
    module_drop(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}
