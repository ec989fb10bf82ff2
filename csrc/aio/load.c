/* The extension module pyepoll._aio: the parts of an asyncio transport and of a turn of the loop that are in
 * C. */
#include "aio/module.h"

static AioState *
state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

PyDoc_STRVAR(layout_read_transport_doc,
"_learn_transport($module, type, socket_type, /)\n--\n\n"
"Give type, a subclass of SocketTransport and of asyncio's, the methods write() and _read_ready() in C.\n"
"They act for sockets of socket_type itself.");

PyDoc_STRVAR(layout_read_handles_doc,
"_learn_handles($module, type, /)\n--\n\n"
"Take note of how type, which is asyncio.Handle, is laid out. Until then there are no batches.");

PyDoc_STRVAR(group_doc,
"_batch($module, loop, events, /)\n--\n\n"
"The handles of loop that wait for the events that its selector reports, as one handle; None where one is\n"
"cancelled or anything is not as asyncio makes it.");

static PyMethodDef module_methods[] = {
    {"_batch",           handles_group,         METH_VARARGS, group_doc                },
    {"_learn_transport", layout_read_transport, METH_VARARGS, layout_read_transport_doc},
    {"_learn_handles",   layout_read_handles,   METH_O,       layout_read_handles_doc  },
    {NULL,               NULL,                  0,            NULL                     },
};

static int
module_exec(PyObject *module)
{
    static const char *const names[METHODS] = {
        [APPENDLEFT] = "appendleft",
        [BUFFER_UPDATED] = "buffer_updated",
        [CALLBACK_FAILED] = "_callback_failed",
        [CANCEL] = "cancel",
        [DATA_RECEIVED] = "data_received",
        [FAILED] = "_failed",
        [GET_BUFFER] = "get_buffer",
        [ON_EOF] = "_read_ready__on_eof",
        [READY] = "_ready",
        [RUN] = "_run",
    };
    AioState *state = state_of(module);
    for (int i = 0; i < METHODS; i++) {
        state->methods[i] = PyUnicode_InternFromString(names[i]);
        if (state->methods[i] == NULL) {
            return -1;
        }
    }
    state->minus_one = PyLong_FromLong(-1);
    state->group_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &group_spec, NULL);
    if (state->minus_one == NULL || state->group_type == NULL) {
        return -1;
    }
    state->transport_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &transport_spec, NULL);
    if (state->transport_type == NULL || PyModule_AddType(module, state->transport_type) < 0) {
        return -1;
    }
    return PyModule_AddType(module, state->group_type);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    AioState *state = state_of(module);
    Py_VISIT(state->transport_type);
    Py_VISIT(state->group_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->handle_run);
    Py_VISIT(state->socket_type);
    for (int i = 0; i < INHERITED; i++) {
        Py_VISIT(state->inherited[i]);
    }
    return 0;
}

/* Only these make a cycle. The rest is needed as long as there is a transport, which may still be used when
 * the module is garbage. */
static int
module_clear(PyObject *module)
{
    AioState *state = state_of(module);
    Py_CLEAR(state->transport_type);
    Py_CLEAR(state->group_type);
    return 0;
}

static void
module_free(void *object)
{
    PyObject *module = object;
    AioState *state = state_of(module);
    module_clear(module);
    Py_CLEAR(state->socket_type);
    for (int i = 0; i < INHERITED; i++) {
        Py_CLEAR(state->inherited[i]);
    }
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->handle_run);
    Py_CLEAR(state->minus_one);
    for (int i = 0; i < METHODS; i++) {
        Py_CLEAR(state->methods[i]);
    }
    PyMem_Free(atomic_exchange(&state->spare, NULL));
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
    .m_name = "pyepoll._aio",
    .m_doc = "The C paths of pyepoll.aio's transports. Import pyepoll.aio instead.",
    .m_size = sizeof(AioState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

AioState *
aio_state_of(PyTypeObject *type)
{
    /* A type that the garbage collector has cleared has no method resolution order to search. */
    PyObject *module = type->tp_mro != NULL ? PyType_GetModuleByDef(type, &module_def) : NULL;
    if (module == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_RuntimeError, "the module pyepoll._aio has been cleared");
    }
    return module != NULL ? state_of(module) : NULL;
}

PyMODINIT_FUNC
PyInit__aio(void)
{
    return PyModuleDef_Init(&module_def);
}
