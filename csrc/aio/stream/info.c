/* A transport as others see it: its repr, get_extra_info(), and attributes that asyncio's code and tests
 * look at. */
#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/stream/stream.h"

/* The events that the loop's selector watches: a mask of selectors' events; 0 where it cannot say. */
static long
watched_events(Stream *self)
{
    PyObject *selector = PyObject_GetAttr(self->loop, stream_name(self, NAME_SELECTOR));
    PyObject *fd = PyLong_FromLong(self->fd);
    PyObject *key = selector != NULL && fd != NULL
                        ? PyObject_CallMethodOneArg(selector, stream_name(self, NAME_GET_KEY), fd)
                        : NULL;
    PyObject *events = key != NULL ? PyObject_GetAttr(key, stream_name(self, NAME_EVENTS)) : NULL;
    long mask = events != NULL ? PyLong_AsLong(events) : 0;
    PyErr_Clear();
    Py_XDECREF(selector);
    Py_XDECREF(fd);
    Py_XDECREF(key);
    Py_XDECREF(events);
    return mask < 0 ? 0 : mask;
}

static bool
has_open_loop(Stream *self)
{
    PyObject *closed = is_given(self->loop)
                           ? PyObject_CallMethodNoArgs(self->loop, stream_name(self, NAME_IS_CLOSED))
                           : NULL;
    bool open = closed == Py_False;
    PyErr_Clear();
    Py_XDECREF(closed);
    return open;
}

PyObject *
stream_repr(PyObject *object)
{
    enum { READ = 1, WRITE = 2 }; /* selectors.EVENT_READ and EVENT_WRITE */
    Stream *self = (Stream *)object;
    if (self->loop == NULL) {
        return PyUnicode_FromFormat("<%s object at %p>", Py_TYPE(self)->tp_name, self);
    }
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (name == NULL) {
        return NULL;
    }
    const char *state = self->loop == Py_None ? " closed" : self->closing ? " closing" : "";
    PyObject *text;
    if (has_open_loop(self)) {
        long events = watched_events(self);
        text = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zd>>", name, state, self->fd,
                                    events & READ ? "polling" : "idle", events & WRITE ? "polling" : "idle",
                                    self->queue.size);
    }
    else {
        text = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, self->fd);
    }
    Py_DECREF(name);
    return text;
}

/* The wrapper of the socket that programs get; its methods flush this transport. Borrowed. */
static PyObject *
transport_socket(Stream *self)
{
    if (self->transport_socket == NULL) {
        PyObject *reference = PyWeakref_NewRef((PyObject *)self, NULL);
        PyObject *sock = self->sock != NULL ? self->sock : Py_None;
        self->transport_socket = reference != NULL
                                     ? PyObject_CallFunctionObjArgs(stream_state(self)->transport_socket,
                                                                    sock, reference, NULL)
                                     : NULL;
        Py_XDECREF(reference);
    }
    return self->transport_socket;
}

/* Fill a dict as asyncio fills it. 0, or -1 with an exception. */
static int
fill_extra(Stream *self, PyObject *extra)
{
    PyObject *sock = transport_socket(self);
    if (sock == NULL || PyDict_SetItem(extra, stream_name(self, NAME_SOCKET), sock) < 0 ||
        PyDict_SetItem(extra, stream_name(self, NAME_SOCKNAME), self->sockname) < 0) {
        return -1;
    }
    return PyDict_SetItem(extra, stream_name(self, NAME_PEERNAME), self->peername);
}

/* getsockname() or getpeername() of an IPv4 or IPv6 socket. A new reference; NULL, without an exception,
 * where the socket's method has to find out. */
static PyObject *
name_of_fd(Stream *self, int method)
{
    SockAddr address = {.length = sizeof(address.v6)};
    int fd = socket_has_own_methods(self->module->aio) ? stream_open_fd(self) : -1;
    int failed = fd < 0                       ? -1
                 : method == NAME_GETPEERNAME ? getpeername(fd, &address.any, &address.length)
                                              : getsockname(fd, &address.any, &address.length);
    bool known = failed == 0 && ((address.length == sizeof(address.v4) && address.any.sa_family == AF_INET) ||
                                 (address.length == sizeof(address.v6) && address.any.sa_family == AF_INET6));
    PyObject *name = known ? sockaddr_to_python(&address) : NULL;
    PyErr_Clear();
    return name;
}

/* The result of a method of the socket; None if the system refuses. A new reference. */
static PyObject *
name_or_none(Stream *self, int method)
{
    PyObject *known = name_of_fd(self, method);
    if (known != NULL) {
        return known;
    }
    PyObject *name = PyObject_CallMethodNoArgs(self->sock, stream_name(self, method));
    if (name == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        name = Py_NewRef(Py_None);
    }
    return name;
}

/* `extra` is None, or a dict whose "peername", if it has one, is taken. */
int
stream_set_extra(Stream *self, PyObject *extra)
{
    Py_XSETREF(self->sockname, name_or_none(self, NAME_GETSOCKNAME));
    if (self->sockname == NULL) {
        return -1;
    }
    PyObject *peername = NULL;
    if (is_given(extra) && PyDict_Check(extra) &&
        PyDict_GetItemRef(extra, stream_name(self, NAME_PEERNAME), &peername) < 0) {
        return -1;
    }
    bool whole = !is_given(extra) || (PyDict_Check(extra) && PyDict_GET_SIZE(extra) == (peername != NULL));
    Py_XSETREF(self->peername, peername != NULL ? peername : name_or_none(self, NAME_GETPEERNAME));
    if (self->peername == NULL) {
        return -1;
    }
    if (whole) {
        return 0;
    }
    Py_XSETREF(self->extra, Py_NewRef(extra));
    return fill_extra(self, extra);
}

static PyObject *
get_extra(PyObject *object, void *Py_UNUSED(closure))
{
    Stream *self = (Stream *)object;
    if (self->extra == NULL) {
        PyObject *extra = PyDict_New();
        bool known = self->peername != NULL; /* it is the last that __init__() finds */
        if (extra == NULL || (known && fill_extra(self, extra) < 0)) {
            Py_XDECREF(extra);
            return NULL;
        }
        self->extra = extra;
    }
    return Py_NewRef(self->extra);
}

static int
set_extra(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(((Stream *)object)->extra, Py_XNewRef(value));
    return 0;
}

/* Whether a name is this one: most are interned, and so the same object. */
static bool
is_name(const Stream *self, PyObject *name, int index)
{
    return name == stream_name(self, index) ||
           (PyUnicode_Check(name) && PyUnicode_Compare(name, stream_name(self, index)) == 0);
}

/* The value: a new reference; NULL with or without an exception. */
static PyObject *
find_extra(Stream *self, PyObject *name)
{
    PyObject *value = NULL;
    if (self->extra != NULL) {
        /* The name may have an __eq__() that replaces the dict. */
        PyObject *extra = Py_NewRef(self->extra);
        if (PyDict_Check(extra)) {
            (void)PyDict_GetItemRef(extra, name, &value);
        }
        Py_DECREF(extra);
        return value;
    }
    value = is_name(self, name, NAME_SOCKET) && self->sock != NULL ? transport_socket(self)
            : is_name(self, name, NAME_SOCKNAME)                   ? self->sockname
            : is_name(self, name, NAME_PEERNAME)                   ? self->peername
                                                                   : NULL;
    return Py_XNewRef(value);
}

PyObject *
stream_get_extra_info(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *otherwise = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &otherwise)) {
        return NULL;
    }
    PyObject *value = find_extra((Stream *)object, name);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(otherwise);
}

static PyObject *
get_sock(PyObject *object, void *Py_UNUSED(closure))
{
    Stream *self = (Stream *)object;
    return Py_NewRef(is_given(self->loop) && self->sock != NULL ? self->sock : Py_None);
}

static int
set_sock(PyObject *object, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(((Stream *)object)->sock, Py_NewRef(value != NULL ? value : Py_None));
    return 0;
}

/* asyncio's callback for the kind of protocol: None when the transport reads no more. */
static PyObject *
get_read_ready_cb(PyObject *object, void *Py_UNUSED(closure))
{
    Stream *self = (Stream *)object;
    bool reads = !self->closing && is_given(self->protocol);
    return reads ? PyObject_GetAttr(object, stream_name(self, NAME_READ_READY)) : Py_NewRef(Py_None);
}

PyGetSetDef stream_getset[] = {
    {"_extra",         get_extra,         set_extra, NULL, NULL},
    {"_read_ready_cb", get_read_ready_cb, NULL,      NULL, NULL},
    {"_sock",          get_sock,          set_sock,  NULL, NULL},
    {NULL,             NULL,              NULL,      NULL, NULL},
};

#define FIELD(name, type, field, flags) {name, type, offsetof(Stream, field), flags, NULL}

PyMemberDef stream_members[] = {
    FIELD("__dictoffset__", T_PYSSIZET, dict, READONLY),
    FIELD("__weaklistoffset__", T_PYSSIZET, weakrefs, READONLY),
    FIELD("max_size", T_PYSSIZET, max_size, 0),
    FIELD("_sock_fd", T_INT, fd, READONLY),
    FIELD("_conn_lost", T_INT, conn_lost, READONLY),
    FIELD("_closing", T_BOOL, closing, READONLY),
    FIELD("_paused", T_BOOL, paused, READONLY),
    FIELD("_eof", T_BOOL, eof, READONLY),
    FIELD("_protocol", T_OBJECT, protocol, READONLY),
    FIELD("_server", T_OBJECT, server, 0),
    FIELD("_context", T_OBJECT, context, READONLY),
    FIELD("_empty_waiter", T_OBJECT, empty_waiter, 0),
    FIELD("_sendfile", T_OBJECT, sendfile, 0),
    {NULL, 0, 0, 0, NULL},
};
