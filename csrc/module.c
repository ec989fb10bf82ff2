/* The extension module: tables, and what an interpreter's copy is made of. */
#include "module.h"

#include "base/atfork.h"
#include "core/instance.h"
#include "errors.h"
#include "flags.h"
#include "wait.h"

#include <errno.h>
#include <unistd.h>

static ModuleState *
state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

PyDoc_STRVAR(use_events_doc,
"_use_events($module, event, /)\n--\n\n"
"Let event(mask) make what a wait yields for the events; until then they are ints.");

static PyObject *
use_events(PyObject *module, PyObject *event_class)
{
    ModuleState *state = state_of(module);
    if (state->events == NULL) {
        module_type(NULL);
        return NULL;
    }
    PyDict_Clear(state->events);
    Py_XSETREF(state->event_class, Py_NewRef(event_class));
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
    return use < 0 ? NULL : PyBool_FromLong(wait_use_pwait2(use));
}

PyDoc_STRVAR(uses_pwait2_doc,
"uses_pwait2($module, /)\n--\n\n"
"Return whether waits of this process use the system call epoll_pwait2, so that timeouts have a resolution\n"
"of nanoseconds: True until the call is refused for the first time, or use_pwait2(False).");

static PyObject *
uses_pwait2(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(wait_uses_pwait2());
}

PyDoc_STRVAR(switched_off_pwait2_doc,
"_switched_off_pwait2($module, /)\n--\n\n"
"Return whether use_pwait2(False) or PYEPOLL_NO_PWAIT2 is in force, so that nothing may make the call.");

static PyObject *
switched_off_pwait2(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(wait_switched_off_pwait2());
}

PyDoc_STRVAR(own_methods_doc,
"_own_methods($module, type, /)\n--\n\n"
"Give type, a subclass of Epoll or Selector, method objects of its own, which are faster to call, and\n"
"return it.");

PyDoc_STRVAR(use_keys_doc,
"_use_keys($module, type, /)\n--\n\n"
"Let type, selectors.SelectorKey, be what Selector.register makes.");

static PyObject *
use_keys(PyObject *module, PyObject *type)
{
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &PyTuple_Type)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of tuple", type);
    }
    Py_XSETREF(state_of(module)->key_type, (PyTypeObject *)Py_NewRef(type));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(key_number_doc,
"_key_number($module, keys, fileobj, /)\n--\n\n"
"Return the fd number of a file object: of a closed one, that of its SelectorKey in the dict keys.\n\n"
"Raises ValueError when it has none.");

static PyMethodDef module_methods[] = {
    {"_key_number",          (PyCFunction)(void (*)(void))key_number, METH_FASTCALL, key_number_doc         },
    {"_own_methods",         own_methods,                             METH_O,        own_methods_doc        },
    {"_use_events",          use_events,                              METH_O,        use_events_doc         },
    {"_use_keys",            use_keys,                                METH_O,        use_keys_doc           },
    {"use_pwait2",           use_pwait2,                              METH_O,        use_pwait2_doc         },
    {"uses_pwait2",          uses_pwait2,                             METH_NOARGS,   uses_pwait2_doc        },
    {"_switched_off_pwait2", switched_off_pwait2,                     METH_NOARGS,   switched_off_pwait2_doc},
    {NULL,                   NULL,                                    0,             NULL                   },
};

static int
add_types(PyObject *module, ModuleState *state)
{
    const struct {
        PyType_Spec *spec;
        PyTypeObject **type;
        bool public;
    } types[] = {
        {&epoll_spec,    &state->epoll_type,    true },
        {&buffer_spec,   &state->buffer_type,   true },
        {&waker_spec,    &state->waker_type,    true },
        {&selector_spec, &state->selector_type, true },
        {&instance_spec, &state->instance_type, false},
        {&ready_spec,    &state->ready_type,    false},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        *types[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (*types[i].type == NULL || (types[i].public && PyModule_AddType(module, *types[i].type) < 0)) {
            return -1;
        }
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    ModuleState *state = state_of(module);
    state->object = module;
    state->ready_fd = ready_eventfd();
    if (state->ready_fd < 0) {
        os_error(errno, "eventfd(CLOEXEC | NONBLOCK), with which close() wakes waiters");
        return -1;
    }
    errno = fork_watch_start();
    if (errno != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    wait_read_environment();
    state->events = PyDict_New();
    state->instances = PyDict_New();
    if (state->events == NULL || state->instances == NULL || add_types(module, state) < 0 ||
        PyModule_AddFunctions(module, raw_methods) < 0 || PyModule_AddFunctions(module, kcmp_methods) < 0) {
        return -1;
    }
    return flags_add_constants(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = state_of(module);
    Py_VISIT(state->epoll_type);
    Py_VISIT(state->instance_type);
    Py_VISIT(state->ready_type);
    Py_VISIT(state->buffer_type);
    Py_VISIT(state->waker_type);
    Py_VISIT(state->selector_type);
    Py_VISIT(state->plain_epoll);
    Py_VISIT(state->key_type);
    Py_VISIT(state->event_class);
    Py_VISIT(state->events);
    Py_VISIT(state->instances);
    return 0;
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = state_of(module);
    Py_CLEAR(state->epoll_type);
    Py_CLEAR(state->instance_type);
    Py_CLEAR(state->ready_type);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->waker_type);
    Py_CLEAR(state->selector_type);
    Py_CLEAR(state->plain_epoll);
    Py_CLEAR(state->key_type);
    Py_CLEAR(state->event_class);
    Py_CLEAR(state->events);
    Py_CLEAR(state->instances);
    return 0;
}

static void
module_free(void *object)
{
    PyObject *module = object;
    ModuleState *state = state_of(module);
    module_clear(module);
    /* Zeroed before exec; 0 is then no number of ours. */
    if (state->ready_fd > 0 && is_ready_eventfd(state->ready_fd)) {
        close(state->ready_fd);
    }
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec,                  module_exec                         },
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil,                   Py_MOD_GIL_NOT_USED                 },
#endif
    {0,                            NULL                                },
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyepoll._epoll",
    .m_doc = "The core of pyepoll: the system calls and the Epoll type. Import pyepoll instead.",
    .m_size = sizeof(ModuleState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

ModuleState *
module_state_of(PyTypeObject *type)
{
    /* A type that the garbage collector has cleared has no method resolution order to search. */
    PyObject *module = type->tp_mro != NULL ? PyType_GetModuleByDef(type, &module_def) : NULL;
    if (module == NULL && !PyErr_Occurred()) {
        module_type(NULL);
    }
    return module != NULL ? state_of(module) : NULL;
}

PyMODINIT_FUNC
PyInit__epoll(void)
{
    return PyModuleDef_Init(&module_def);
}
