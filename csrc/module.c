/* The extension module _epoll: its types, functions and constants, and an interpreter's copy of them. */
#include "aio/state.h"
#include "base/atfork.h"
#include "base/errors.h"
#include "base/flags.h"
#include "base/module_state.h"
#include "base/timed_wait.h"
#include "core/child.h"
#include "core/epoll.h"
#include "core/instance.h"
#include "core/ready.h"
#include "core/settings.h"
#include "core/signals.h"
#include "core/timer.h"
#include "core/waker.h"
#include "raw/event_buffer.h"
#include "raw/raw.h"
#include "selector/selector.h"
#include "selector/selector_key.h"

#include <errno.h>
#include <unistd.h>

static ModuleState *
state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static int
add_functions(PyObject *module)
{
    PyMethodDef *const tables[] = {
        raw_methods,           kcmp_methods,  settings_functions, selector_key_functions,
        own_methods_functions, aio_functions,
    };
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (PyModule_AddFunctions(module, tables[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
add_types(PyObject *module, ModuleState *state)
{
    const struct {
        PyType_Spec *spec;
        PyTypeObject **type;
        bool public;
    } types[] = {
        {&epoll_spec,        &state->types.epoll,        true },
        {&event_buffer_spec, &state->types.event_buffer, true },
        {&waker_spec,        &state->types.waker,        true },
        {&timer_spec,        &state->types.timer,        true },
        {&signals_spec,      &state->types.signals,      true },
        {&child_spec,        &state->types.child,        true },
        {&selector_spec,     &state->types.selector,     true },
        {&instance_spec,     &state->types.instance,     false},
        {&ready_spec,        &state->types.ready,        false},
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
    state->always_ready_fd = always_ready_eventfd();
    if (state->always_ready_fd < 0) {
        os_error(errno, "eventfd(CLOEXEC | NONBLOCK), with which close() wakes waiters");
        return -1;
    }
    errno = fork_watch_start();
    if (errno != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    timed_wait_read_environment();
    state->package.members = PyDict_New();
    state->instances = PyDict_New();
    if (state->package.members == NULL || state->instances == NULL || add_types(module, state) < 0 ||
        add_functions(module) < 0) {
        return -1;
    }
    return flags_add_constants(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = state_of(module);
    Py_VISIT(state->types.epoll);
    Py_VISIT(state->types.instance);
    Py_VISIT(state->types.ready);
    Py_VISIT(state->types.event_buffer);
    Py_VISIT(state->types.waker);
    Py_VISIT(state->types.timer);
    Py_VISIT(state->types.signals);
    Py_VISIT(state->types.child);
    Py_VISIT(state->types.selector);
    Py_VISIT(state->package.epoll);
    Py_VISIT(state->package.selector_key);
    Py_VISIT(state->package.event);
    Py_VISIT(state->package.signals);
    Py_VISIT(state->package.members);
    Py_VISIT(state->instances);
    return aio_traverse(state, visit, arg);
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = state_of(module);
    Py_CLEAR(state->types.epoll);
    Py_CLEAR(state->types.instance);
    Py_CLEAR(state->types.ready);
    Py_CLEAR(state->types.event_buffer);
    Py_CLEAR(state->types.waker);
    Py_CLEAR(state->types.timer);
    Py_CLEAR(state->types.signals);
    Py_CLEAR(state->types.child);
    Py_CLEAR(state->types.selector);
    Py_CLEAR(state->package.epoll);
    Py_CLEAR(state->package.selector_key);
    Py_CLEAR(state->package.event);
    Py_CLEAR(state->package.signals);
    Py_CLEAR(state->package.members);
    Py_CLEAR(state->instances);
    aio_clear(state);
    return 0;
}

static void
module_free(void *object)
{
    PyObject *module = object;
    ModuleState *state = state_of(module);
    module_clear(module);
    aio_free(state);
    /* Zeroed before exec; 0 is then no number of ours. */
    if (state->always_ready_fd > 0 && is_always_ready_eventfd(state->always_ready_fd)) {
        close(state->always_ready_fd);
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

PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyepoll._epoll",
    .m_doc = "The core of pyepoll: the system calls and the Epoll type. Import pyepoll instead.",
    .m_size = sizeof(ModuleState),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__epoll(void)
{
    return PyModuleDef_Init(&module_def);
}
