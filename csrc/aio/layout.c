/* Where the attributes that C reads are in the objects of asyncio and socket, and which methods of asyncio C
 * replaces. A failure leaves the earlier layout in force. */
#include "aio/state.h"
#include "base/subclass.h"

#include <structmember.h>

enum { MAX_NAMES = 8 };

/* The offset of a slot that `type` itself defines; -1 with an exception. */
static Py_ssize_t
offset_of(PyObject *type, const char *name)
{
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    Py_ssize_t offset = -1;
    if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
        PyDescr_TYPE(descriptor) == (PyTypeObject *)type) {
        offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    else if (descriptor != NULL) {
        PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, name);
    }
    Py_XDECREF(descriptor);
    return offset;
}

/* The offsets of slots that `type` itself defines, for at most MAX_NAMES names. 0; -1 with an exception, and
 * none is written. */
static int
offsets_of(PyObject *type, const char *const *names, int count, Py_ssize_t *offsets)
{
    Py_ssize_t found[MAX_NAMES];
    for (int i = 0; i < count; i++) {
        found[i] = offset_of(type, names[i]);
        if (found[i] < 0) {
            return -1;
        }
    }
    memcpy(offsets, found, (size_t)count * sizeof(*offsets));
    return 0;
}

static void
clear_references(PyObject **objects, int count)
{
    for (int i = 0; i < count; i++) {
        Py_CLEAR(objects[i]);
    }
}

/* asyncio's functions, as `type` inherits them: new references. 0; -1 with an exception, and none. */
static int
functions_of(PyObject *type, PyObject **functions)
{
    static const char *const names[INHERITED] = {
        [READ_READY] = "_read_ready",
        [READ_TO_BUFFER] = "_read_ready__get_buffer",
        [READ_TO_PROTOCOL] = "_read_ready__data_received",
        [WRITE] = "write",
    };
    for (int i = 0; i < INHERITED; i++) {
        functions[i] = PyObject_GetAttrString(type, names[i]);
        if (functions[i] == NULL) {
            clear_references(functions, i);
            return -1;
        }
    }
    return 0;
}

PyObject *
layout_read_transport(PyObject *module, PyObject *args)
{
    static const char *const attributes[ATTRIBUTES] = {
        [BUFFER] = "_buffer",   [CONN_LOST] = "_conn_lost", [EMPTY_WAITER] = "_empty_waiter",
        [EOF_WRITTEN] = "_eof", [PROTOCOL] = "_protocol",   [READ_READY_CB] = "_read_ready_cb",
        [SOCK] = "_sock",       [SOCK_FD] = "_sock_fd",
    };
    AioState *state = aio_state(module);
    PyObject *type, *socket_type;
    if (!PyArg_ParseTuple(args, "O!O!:_learn_transport", &PyType_Type, &type, &PyType_Type, &socket_type)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)type, state->transport_type)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of %R", type, state->transport_type);
    }
    Py_ssize_t closed = offset_of(socket_type, "_closed");
    if (closed < 0) {
        /* Another class replaces socket.socket, as eventlet's does: its sockets are left to asyncio. */
        PyErr_Clear();
        socket_type = NULL;
    }
    PyObject *functions[INHERITED];
    if (functions_of(type, functions) < 0) {
        return NULL;
    }
    if (offsets_of(type, attributes, ATTRIBUTES, state->offsets) < 0) {
        clear_references(functions, INHERITED);
        return NULL;
    }
    for (int i = 0; i < INHERITED; i++) {
        Py_XSETREF(state->inherited[i], functions[i]);
    }
    state->closed_offset = closed;
    Py_XSETREF(state->socket_type, (PyTypeObject *)Py_XNewRef(socket_type));
    return subclass_copy_methods(type, transport_methods) == 0 ? Py_NewRef(Py_None) : NULL;
}

PyObject *
layout_read_handles(PyObject *module, PyObject *type)
{
    static const char *const attributes[HANDLE_ATTRIBUTES] = {
        [HANDLE_ARGS] = "_args",
        [HANDLE_CALLBACK] = "_callback",
        [HANDLE_CANCELLED] = "_cancelled",
        [HANDLE_CONTEXT] = "_context",
    };
    AioState *state = aio_state(module);
    PyObject *function = PyObject_GetAttr(type, state->methods[RUN]);
    if (function == NULL || offsets_of(type, attributes, HANDLE_ATTRIBUTES, state->handle_offsets) < 0) {
        Py_XDECREF(function);
        return NULL;
    }
    Py_XSETREF(state->handle_run, function);
    Py_XSETREF(state->handle_type, (PyTypeObject *)Py_NewRef(type));
    Py_RETURN_NONE;
}
