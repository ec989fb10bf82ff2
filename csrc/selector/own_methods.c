/* The module's function _own_methods(), for the package's subclasses of Epoll and Selector. */
#include "base/subclass.h"
#include "core/epoll.h"
#include "selector/selector.h"

PyDoc_STRVAR(own_methods_doc,
"_own_methods($module, type, /)\n--\n\n"
"Give type, a subclass of Epoll or Selector, method objects of its own, which are faster to call, and\n"
"return it.");

static PyObject *
own_methods(PyObject *module, PyObject *type)
{
    ModuleState *state = PyModule_GetState(module);
    int status;
    if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, state->types.epoll)) {
        status = epoll_prepare_subclass(state, type);
    }
    else if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, state->types.selector)) {
        status = subclass_copy_methods(type, selector_methods);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%R is not a subclass of Epoll or Selector", type);
        status = -1;
    }
    return status == 0 ? Py_NewRef(type) : NULL;
}

PyMethodDef own_methods_functions[] = {
    {"_own_methods", own_methods, METH_O, own_methods_doc},
    {NULL,           NULL,        0,      NULL           },
};
