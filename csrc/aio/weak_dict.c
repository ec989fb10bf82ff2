#include "aio/weak_dict.h"

/* KeyedRef(value, remove, key): a new reference, or NULL with an exception. */
static PyObject *
keyed_reference(const FdsState *state, PyObject *value, PyObject *remove, PyObject *key)
{
    PyTypeObject *type = state->keyed_ref;
    PyObject *args = PyTuple_Pack(2, value, remove);
    PyObject *reference = args != NULL ? type->tp_base->tp_new(type, args, NULL) : NULL;
    Py_XDECREF(args);
    if (reference != NULL && PyObject_SetAttr(reference, state->names[FDS_KEY], key) < 0) {
        Py_CLEAR(reference);
    }
    return reference;
}

int
weak_set(const FdsState *state, PyObject *dict, PyObject *key, PyObject *value)
{
    PyObject *data = Py_IS_TYPE(dict, state->weak_dict) ? PyObject_GetAttr(dict, state->names[FDS_DATA])
                                                        : NULL;
    PyObject *remove = data != NULL && PyDict_CheckExact(data)
                           ? PyObject_GetAttr(dict, state->names[FDS_REMOVE])
                           : NULL;
    int status = -1;
    if (remove != NULL) {
        PyObject *reference = keyed_reference(state, value, remove, key);
        status = reference != NULL ? PyDict_SetItem(data, key, reference) : -1;
        Py_XDECREF(reference);
    }
    else {
        PyErr_Clear();
        status = PyObject_SetItem(dict, key, value);
    }
    Py_XDECREF(remove);
    Py_XDECREF(data);
    return status;
}
