#include "base/module_state.h"

ModuleState *
module_state_of(PyTypeObject *type)
{
    /* A type that the garbage collector has cleared has no method resolution order to search. */
    PyObject *module = type->tp_mro != NULL ? PyType_GetModuleByDef(type, &module_def) : NULL;
    if (module == NULL && !PyErr_Occurred()) {
        module_type(NULL);
    }
    return module != NULL ? PyModule_GetState(module) : NULL;
}
