#include "aio/imports.h"

#include <structmember.h>

PyObject *
imported(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *object = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return object;
}

Py_ssize_t
offset_of_closed(PyObject *type)
{
    return offset_of_slot(type, "_closed");
}

Py_ssize_t
offset_of_slot(PyObject *type, const char *name)
{
    PyObject *slot = PyObject_GetAttrString(type, name);
    Py_ssize_t offset = -1;
    if (slot != NULL && Py_IS_TYPE(slot, &PyMemberDescr_Type) && PyDescr_TYPE(slot) == (PyTypeObject *)type) {
        offset = ((PyMemberDescrObject *)slot)->d_member->offset;
    }
    PyErr_Clear();
    Py_XDECREF(slot);
    return offset;
}
