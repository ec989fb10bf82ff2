/* Where the attributes that C reads are in asyncio's handles. A failure leaves the earlier layout in force. */
#include "aio/state.h"

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
