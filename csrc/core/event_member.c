#include "core/event_member.h"

PyObject *
event_member(ModuleState *module, uint32_t mask)
{
    PyObject *number = PyLong_FromUnsignedLong(mask);
    if (number == NULL || module->package.event == NULL || module->package.members == NULL) {
        return number;
    }
    /* With references: the class is Python code, in which the garbage collector may clear the module. */
    PyObject *class = Py_NewRef(module->package.event);
    PyObject *members = Py_NewRef(module->package.members);
    PyObject *event;
    if (PyDict_GetItemRef(members, number, &event) == 0) {
        event = PyObject_CallOneArg(class, number);
        if (event != NULL && PyDict_SetItem(members, number, event) < 0) {
            Py_CLEAR(event);
        }
    }
    Py_DECREF(members);
    Py_DECREF(class);
    Py_DECREF(number);
    return event;
}
