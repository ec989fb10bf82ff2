/* What a transport tells of itself: its repr, get_extra_info(), and attributes that asyncio's code and tests
 * look at. */
#include "aio/stream/stream.h"

#include <structmember.h>

PyObject *
stream_repr(PyObject *object)
{
    Stream *self = (Stream *)object;
    if (self->loop == NULL) {
        return PyUnicode_FromFormat("<%s object at %p>", Py_TYPE(self)->tp_name, self);
    }
    bool lost = !is_given(self->loop);
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    const char *state = lost ? " closed" : self->closing ? " closing" : "";
    PyObject *text = NULL;
    if (name != NULL && lost) {
        text = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, self->fd);
    }
    else if (name != NULL) {
        text = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zd>>", name, state, self->fd,
                                    self->reading ? "polling" : "idle", self->writing ? "polling" : "idle",
                                    self->queue.size);
    }
    Py_XDECREF(name);
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
    if (sock == NULL || PyDict_SetItem(extra, stream_name(self, SOCKET), sock) < 0 ||
        PyDict_SetItem(extra, stream_name(self, SOCKNAME), self->sockname) < 0) {
        return -1;
    }
    return PyDict_SetItem(extra, stream_name(self, PEERNAME), self->peername);
}

/* The result of a method of the socket; None if the system refuses. A new reference. */
static PyObject *
name_or_none(Stream *self, int method)
{
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
    Py_XSETREF(self->sockname, name_or_none(self, GETSOCKNAME));
    if (self->sockname == NULL) {
        return -1;
    }
    PyObject *peername = NULL;
    if (is_given(extra) && PyDict_Check(extra) &&
        PyDict_GetItemRef(extra, stream_name(self, PEERNAME), &peername) < 0) {
        return -1;
    }
    bool whole = !is_given(extra) || (PyDict_Check(extra) && PyDict_GET_SIZE(extra) == (peername != NULL));
    Py_XSETREF(self->peername, peername != NULL ? peername : name_or_none(self, GETPEERNAME));
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
        if (extra == NULL || (self->sockname != NULL && fill_extra(self, extra) < 0)) {
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

/* The value: borrowed; NULL with or without an exception. */
static PyObject *
find_extra(Stream *self, PyObject *name)
{
    if (self->extra != NULL) {
        return PyDict_Check(self->extra) ? PyDict_GetItemWithError(self->extra, name) : NULL;
    }
    return is_name(self, name, SOCKET) && self->sock != NULL ? transport_socket(self)
           : is_name(self, name, SOCKNAME)                   ? self->sockname
           : is_name(self, name, PEERNAME)                   ? self->peername
                                                             : NULL;
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
    return value != NULL ? Py_NewRef(value) : PyErr_Occurred() ? NULL : Py_NewRef(otherwise);
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

PyGetSetDef stream_getset[] = {
    {"_extra", get_extra, set_extra, NULL, NULL},
    {"_sock",  get_sock,  set_sock,  NULL, NULL},
    {NULL,     NULL,      NULL,      NULL, NULL},
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
