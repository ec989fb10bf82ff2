#include "base/subclass.h"

int
subclass_copy_methods(PyObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *method = methods; method->ml_name != NULL; method++) {
        if ((method->ml_flags & METH_CLASS) == 0) {
            PyObject *own = PyDescr_NewMethod((PyTypeObject *)type, method);
            int status = own != NULL ? PyObject_SetAttrString(type, method->ml_name, own) : -1;
            Py_XDECREF(own);
            if (status < 0) {
                return -1;
            }
        }
    }
    return 0;
}
