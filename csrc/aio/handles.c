/* From what a selector reports to what the loop is to run. */
#include "module.h"

/* Add to `handles` the handle at `index` of a key's data, if it waits for one of these events. 1; 0 if it is
 * cancelled, or what there is no handle; -1 with an exception. */
static int
add(const AioState *state, PyObject *handles, PyObject *data, int index)
{
    PyObject *handle = PyTuple_GET_ITEM(data, index);
    if (handle == Py_None) {
        return 1;
    }
    PyObject *cancelled = PyObject_GetAttr(handle, state->cancelled);
    Py_XDECREF(cancelled);
    return cancelled == NULL ? -1 : cancelled != Py_False ? 0 : PyList_Append(handles, handle) == 0 ? 1 : -1;
}

/* The same for an event: a pair of the key and the mask. */
static int
add_all(const AioState *state, PyObject *handles, PyObject *event)
{
    enum { EVENT_READ = 1, EVENT_WRITE = 2, KEY_DATA = 3 };
    PyObject *key = PyTuple_Check(event) && PyTuple_GET_SIZE(event) == 2 ? PyTuple_GET_ITEM(event, 0) : NULL;
    PyObject *data = key != NULL && PyTuple_Check(key) && PyTuple_GET_SIZE(key) == KEY_DATA + 1
                         ? PyTuple_GET_ITEM(key, KEY_DATA)
                         : NULL;
    if (data == NULL || !PyTuple_Check(data) || PyTuple_GET_SIZE(data) != 2) {
        return 0;
    }
    long mask = PyLong_AsLong(PyTuple_GET_ITEM(event, 1));
    int status = mask == -1 && PyErr_Occurred() ? -1 : 1;
    if (status > 0 && (mask & EVENT_READ) != 0) {
        status = add(state, handles, data, 0);
    }
    if (status > 0 && (mask & EVENT_WRITE) != 0) {
        status = add(state, handles, data, 1);
    }
    return status;
}

PyObject *
handles_of(PyObject *module, PyObject *events)
{
    const AioState *state = PyModule_GetState(module);
    if (!PyList_CheckExact(events)) {
        Py_RETURN_NONE;
    }
    PyObject *handles = PyList_New(0);
    int status = handles != NULL ? 1 : -1;
    for (Py_ssize_t i = 0; status > 0 && i < PyList_GET_SIZE(events); i++) {
        PyObject *event = Py_NewRef(PyList_GET_ITEM(events, i));
        status = add_all(state, handles, event);
        Py_DECREF(event);
    }
    if (status <= 0) {
        Py_CLEAR(handles);
    }
    return status == 0 ? Py_NewRef(Py_None) : handles;
}
