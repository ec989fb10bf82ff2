#include "core/settings.h"

#include "base/module_state.h"
#include "base/timed_wait.h"

PyDoc_STRVAR(use_events_doc,
"_use_events($module, event, /)\n--\n\n"
"Let waits yield event(mask) for an event mask; until this call they yield ints.");

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

PyDoc_STRVAR(use_signals_doc,
"_use_signals($module, members, /)\n--\n\n"
"Let Signals.read() return the members that this dict has for the numbers of signals.");

static PyObject *
use_signals(PyObject *module, PyObject *members)
{
    ModuleState *state = PyModule_GetState(module);
    if (!PyDict_CheckExact(members)) {
        PyErr_SetString(PyExc_TypeError, "a dict is required");
        return NULL;
    }
    Py_XSETREF(state->package.signals, Py_NewRef(members));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(use_pwait2_doc,
"use_pwait2($module, use, /)\n--\n\n"
"Let waits use the system call epoll_pwait2, or avoid it if use is false; return the old value.\n\n"
"Without it, timeouts are rounded up to the millisecond; nothing else changes. The setting applies to the\n"
"whole process. pyepoll turns it off by itself if the call is missing or fails. If a seccomp filter would\n"
"kill the program for the call, turn it off before the first wait, with this function or with the\n"
"environment variable PYEPOLL_NO_PWAIT2=1, which is read at import. raw.epoll_pwait2 makes the call in any\n"
"case. Raises the exceptions of bool(use). See epoll_pwait2(2), Linux 5.11.");

static PyObject *
use_pwait2(PyObject *Py_UNUSED(module), PyObject *object)
{
    int use = PyObject_IsTrue(object);
    return use < 0 ? NULL : PyBool_FromLong(timed_wait_use_pwait2(use));
}

PyDoc_STRVAR(uses_pwait2_doc,
"uses_pwait2($module, /)\n--\n\n"
"Return whether waits of this process use the system call epoll_pwait2, so that timeouts have a resolution\n"
"of nanoseconds: True until the call is refused for the first time, or use_pwait2(False).");

static PyObject *
uses_pwait2(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(timed_wait_uses_pwait2());
}

PyDoc_STRVAR(switched_off_pwait2_doc,
"_switched_off_pwait2($module, /)\n--\n\n"
"Return whether use_pwait2(False) or PYEPOLL_NO_PWAIT2 is in force, so that nothing may make the call.");

static PyObject *
switched_off_pwait2(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(timed_wait_switched_off_pwait2());
}

PyMethodDef settings_functions[] = {
    {"_use_events",          use_events,          METH_O,      use_events_doc         },
    {"_use_signals",         use_signals,         METH_O,      use_signals_doc        },
    {"use_pwait2",           use_pwait2,          METH_O,      use_pwait2_doc         },
    {"uses_pwait2",          uses_pwait2,         METH_NOARGS, uses_pwait2_doc        },
    {"_switched_off_pwait2", switched_off_pwait2, METH_NOARGS, switched_off_pwait2_doc},
    {NULL,                   NULL,                0,           NULL                   },
};
