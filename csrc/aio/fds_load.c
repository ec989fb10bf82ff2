#include "aio/fds_state.h"

#include "aio/fds.h"
#include "aio/readers.h"
#include "base/subclass.h"

static const char *const names[FDS_NAMES] = {
    [FDS_ADD_READER] = "_add_reader",
    [FDS_ADD_WRITER] = "_add_writer",
    [FDS_REMOVE_READER] = "_remove_reader",
    [FDS_REMOVE_WRITER] = "_remove_writer",
    [FDS_PUBLIC_ADD_READER] = "add_reader",
    [FDS_PUBLIC_ADD_WRITER] = "add_writer",
    [FDS_PUBLIC_REMOVE_READER] = "remove_reader",
    [FDS_PUBLIC_REMOVE_WRITER] = "remove_writer",
    [FDS_CANCEL] = "cancel",
    [FDS_CANCELLED] = "_cancelled",
    [FDS_CHECK_CLOSED] = "_check_closed",
    [FDS_CLOSED] = "_closed",
    [FDS_DATA] = "data",
    [FDS_ENSURE_NO_TRANSPORT] = "_ensure_fd_no_transport",
    [FDS_FILENO] = "fileno",
    [FDS_HANDLE] = "Handle",
    [FDS_IS_CLOSED] = "is_closed",
    [FDS_SELECTOR] = "_selector",
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
    state->entry_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &fdentry_spec, NULL);
    state->base_type = state->entry_type != NULL
                           ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_selector_spec, NULL)
                           : NULL;
    state->readers_type = state->base_type != NULL
                              ? (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_readers_spec, NULL)
                              : NULL;
    return state->readers_type != NULL ? 0 : -1;
}

int
fds_traverse(const FdsState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->entry_type);
    Py_VISIT(state->base_type);
    Py_VISIT(state->readers_type);
    Py_VISIT(state->selector_class);
    Py_VISIT(state->socket_type);
    Py_VISIT(state->loop_class);
    Py_VISIT(state->weak_dict);
    Py_VISIT(state->events);
    for (int i = 0; i < FDS_PUBLIC; i++) {
        Py_VISIT(state->stock[i]);
    }
    return 0;
}

void
fds_clear(FdsState *state)
{
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->base_type);
    Py_CLEAR(state->readers_type);
    Py_CLEAR(state->selector_class);
    Py_CLEAR(state->socket_type);
    Py_CLEAR(state->loop_class);
    Py_CLEAR(state->weak_dict);
    Py_CLEAR(state->events);
    for (int i = 0; i < FDS_PUBLIC; i++) {
        Py_CLEAR(state->stock[i]);
    }
}

void
fds_free(FdsState *state)
{
    fds_clear(state);
    for (int i = 0; i < FDS_NAMES; i++) {
        Py_CLEAR(state->names[i]);
    }
}

/* asyncio's own methods. 0, or -1 with an exception. */
static int
learn_stock(FdsState *state, PyObject *stock_loop)
{
    for (int i = 0; i < FDS_PUBLIC; i++) {
        PyObject *method = PyObject_GetAttr(stock_loop, state->names[i]);
        if (method == NULL) {
            return -1;
        }
        Py_XSETREF(state->stock[i], method);
    }
    return 0;
}

PyObject *
fds_learn(PyObject *module, PyObject *args)
{
    FdsState *state = &aio_state(module)->fds;
    PyObject *loop, *stock_loop, *selector, *sock, *weak_dict, *events;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!O:_learn_fds", &PyType_Type, &loop, &PyType_Type, &stock_loop,
                          &PyType_Type, &selector, &PyType_Type, &sock, &PyType_Type, &weak_dict, &events) ||
        learn_stock(state, stock_loop) < 0) {
        return NULL;
    }
    Py_XSETREF(state->loop_class, (PyTypeObject *)Py_NewRef(loop));
    Py_XSETREF(state->selector_class, (PyTypeObject *)Py_NewRef(selector));
    Py_XSETREF(state->socket_type, (PyTypeObject *)Py_NewRef(sock));
    Py_XSETREF(state->weak_dict, (PyTypeObject *)Py_NewRef(weak_dict));
    Py_XSETREF(state->events, Py_NewRef(events));
    if (subclass_copy_methods(selector, loop_selector_methods) < 0 ||
        subclass_copy_methods(loop, readers_methods) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
