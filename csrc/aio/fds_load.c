#include "aio/fds_state.h"

#include "aio/fds.h"
#include "aio/imports.h"
#include "aio/reader_methods.h"
#include "base/subclass.h"

static const char *const names[FDS_NAMES] = {
    [FDS_CANCEL] = "cancel",
    [FDS_CANCELLED] = "_cancelled",
    [FDS_CLOSE] = "close",
    [FDS_CLOSED] = "_closed",
    [FDS_CONNECT] = "connect",
    [FDS_DATA] = "data",
    [FDS_FILENO] = "fileno",
    [FDS_GETPEERNAME] = "getpeername",
    [FDS_GETSOCKNAME] = "getsockname",
    [FDS_GETSOCKOPT] = "getsockopt",
    [FDS_GETTIMEOUT] = "gettimeout",
    [FDS_INIT] = "__init__",
    [FDS_IO_REFS] = "_io_refs",
    [FDS_KEY] = "key",
    [FDS_NAME] = "__name__",
    [FDS_REAL_CLOSE] = "_real_close",
    [FDS_REMOVE] = "_remove",
    [FDS_SETBLOCKING] = "setblocking",
    [FDS_TRANSPORTS] = "_transports",
};

int
fds_init(PyObject *module, FdsState *state)
{
    for (int i = 0; i < FDS_NAMES; i++) {
        state->names[i] = PyUnicode_InternFromString(names[i]);
        if (state->names[i] == NULL) {
            return -1;
        }
    }
    state->zero = PyLong_FromLong(0);
    if (state->zero == NULL) {
        return -1;
    }
    state->entry_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &fdentry_spec, NULL);
    state->base_type = state->entry_type != NULL
                           ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_selector_spec, NULL)
                           : NULL;
    return state->base_type != NULL ? 0 : -1;
}

int
fds_traverse(const FdsState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->entry_type);
    Py_VISIT(state->base_type);
    Py_VISIT(state->selector_class);
    Py_VISIT(state->socket_type);
    Py_VISIT(state->socket_close);
    Py_VISIT(state->socket_family);
    Py_VISIT(state->socket_kind);
    Py_VISIT(state->socket_proto);
    Py_VISIT(state->socket_fileno);
    Py_VISIT(state->weak_dict);
    Py_VISIT(state->keyed_ref);
    return 0;
}

void
fds_clear(FdsState *state)
{
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->base_type);
    Py_CLEAR(state->selector_class);
    Py_CLEAR(state->socket_type);
    Py_CLEAR(state->socket_close);
    Py_CLEAR(state->socket_family);
    Py_CLEAR(state->socket_kind);
    Py_CLEAR(state->socket_proto);
    Py_CLEAR(state->socket_fileno);
    Py_CLEAR(state->weak_dict);
    Py_CLEAR(state->keyed_ref);
}

void
fds_free(FdsState *state)
{
    fds_clear(state);
    Py_CLEAR(state->zero);
    for (int i = 0; i < FDS_NAMES; i++) {
        Py_CLEAR(state->names[i]);
    }
}

/* A method in C that takes no arguments: a new reference; NULL for another. */
static PyObject *
method_of(PyTypeObject *type, const char *name)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)type, name);
    if (method != NULL && !(Py_IS_TYPE(method, &PyMethodDescr_Type) && PyDescr_TYPE(method) == type &&
                            ((PyMethodDescrObject *)method)->d_method->ml_flags == METH_NOARGS)) {
        Py_CLEAR(method);
    }
    return method;
}

/* Find the descriptors of a socket class: none, if it is not CPython's own. */
static void
learn_socket(FdsState *state, PyObject *type)
{
    PyObject *base = (PyObject *)((PyTypeObject *)type)->tp_base;
    state->io_refs_offset = offset_of_slot(type, "_io_refs");
    bool known = offset_of_closed(type) >= 0 && state->io_refs_offset >= 0;
    Py_XSETREF(state->socket_close, known ? PyObject_GetAttrString(base, "close") : NULL);
    Py_XSETREF(state->socket_family, known ? PyObject_GetAttrString(base, "family") : NULL);
    Py_XSETREF(state->socket_kind, known ? PyObject_GetAttrString(base, "type") : NULL);
    Py_XSETREF(state->socket_proto, known ? PyObject_GetAttrString(base, "proto") : NULL);
    Py_XSETREF(state->socket_fileno, known ? method_of((PyTypeObject *)base, "fileno") : NULL);
    state->fileno_version = 0;
    PyErr_Clear();
}

PyObject *
fds_learn(PyObject *module, PyObject *args)
{
    FdsState *state = &aio_state(module)->fds;
    PyObject *loop, *selector, *sock, *weak_dict;
    if (!PyArg_ParseTuple(args, "O!O!O!O!:_learn_fds", &PyType_Type, &loop, &PyType_Type, &selector,
                          &PyType_Type, &sock, &PyType_Type, &weak_dict)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)loop, aio_state(module)->loop.base_type)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of _LoopBase", loop);
    }
    Py_XSETREF(state->selector_class, (PyTypeObject *)Py_NewRef(selector));
    Py_XSETREF(state->socket_type, (PyTypeObject *)Py_NewRef(sock));
    learn_socket(state, sock);
    Py_XSETREF(state->weak_dict, (PyTypeObject *)Py_NewRef(weak_dict));
    Py_XSETREF(state->keyed_ref, (PyTypeObject *)imported("weakref", "KeyedRef"));
    if (state->keyed_ref == NULL) {
        return NULL;
    }
    if (subclass_copy_methods(selector, loop_selector_methods) < 0 ||
        subclass_copy_methods(loop, reader_methods) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
