#include "core/settings.h"

#include "base/module_state.h"
#include "base/timed_wait.h"

PyDoc_STRVAR(use_events_doc,
"_use_events($module, event, /)\n--\n\n"
"Let event(mask) make what a wait yields for the events; until then they are ints.");

static PyObject *
use_events(PyObject *module, PyObject *event_class)
{
    ModuleState *state = PyModule_GetState(module);
    if (state->package.members == NULL) {
        module_type(NULL);
        return NULL;
    }
    PyDict_Clear(state->package.members);
    Py_XSETREF(state->package.event, Py_NewRef(event_class));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(use_pwait2_doc,
"use_pwait2($module, use, /)\n--\n\n"
"Let waits use the system call epoll_pwait2 or, for a false value, do without it; return the old value.\n\n"
"Without it, timeouts are rounded up to the millisecond and nothing else changes. The setting is the whole\n"
"process's. pyepoll turns it off by itself when the call is missing or answered with an error; a program\n"
"that a seccomp filter would kill for the call turns it off before its first wait, with this function or\n"
"with the environment variable PYEPOLL_NO_PWAIT2=1, which is read at import. raw.epoll_pwait2 makes the\n"
"call in any case. Raises what bool(use) raises. See epoll_pwait2(2), Linux 5.11.");

static PyObject *
use_pwait2(PyObject *Py_UNUSED(module), PyObject *object)
{
    int use = PyObject_IsTrue(object);
    return use < 0 ? NULL : PyBool_FromLong(timed_wait_use_pwait2(use));
}

PyMethodDef settings_functions[] = {
    {"_use_events", use_events, METH_O, use_events_doc},
    {"use_pwait2",  use_pwait2, METH_O, use_pwait2_doc},
    {NULL,          NULL,       0,      NULL          },
};
