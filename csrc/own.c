/* Method objects of their own for the package's subclasses. The interpreter calls a method by a short cut
 * when the object's type is the one that the method was made for, and a subclass's never is: 30 ns of a
 * call. */
#include "module.h"

static int
give_methods(PyObject *type, PyMethodDef *methods)
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

PyObject *
own_methods(PyObject *module, PyObject *type)
{
    ModuleState *state = PyModule_GetState(module);
    int status;
    if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, state->epoll_type)) {
        status = give_methods(type, epoll_methods);
        if (status == 0 && state->plain_epoll == NULL) {
            state->plain_epoll = (PyTypeObject *)Py_NewRef(type);
        }
    }
    else if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, state->selector_type)) {
        status = give_methods(type, selector_methods);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%R is not a subclass of Epoll or Selector", type);
        status = -1;
    }
    return status == 0 ? Py_NewRef(type) : NULL;
}
