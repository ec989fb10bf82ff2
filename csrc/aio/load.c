/* The aio types and functions of the module, made when pyepoll.aio is first imported: programs without asyncio
 * do not pay for them. */
#include "aio/state.h"

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

static PyMethodDef functions[] = {
    {"_batch",           handles_group,         METH_VARARGS, group_doc                },
    {"_learn_transport", layout_read_transport, METH_VARARGS, layout_read_transport_doc},
    {"_learn_handles",   layout_read_handles,   METH_O,       layout_read_handles_doc  },
    {NULL,               NULL,                  0,            NULL                     },
};

/* 0, or -1 with an exception. */
static int
make_names(AioState *state)
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
    for (int i = 0; i < METHODS; i++) {
        state->methods[i] = PyUnicode_InternFromString(names[i]);
        if (state->methods[i] == NULL) {
            return -1;
        }
    }
    state->minus_one = PyLong_FromLong(-1);
    return state->minus_one != NULL ? 0 : -1;
}

/* Make the types; they are the module's. 0, or -1 with an exception. */
static int
make_types(PyObject *module, AioState *state)
{
    const struct {
        PyType_Spec *spec;
        PyTypeObject **type;
    } types[] = {
        {&group_spec,     &state->group_type    },
        {&transport_spec, &state->transport_type},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        *types[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (*types[i].type == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Add a type or function to the result, under the last part of its name. Takes over the reference. 0, or -1
 * with an exception. */
static int
add_named(PyObject *result, const char *name, PyObject *object)
{
    int status = object != NULL ? PyDict_SetItemString(result, name, object) : -1;
    Py_XDECREF(object);
    return status;
}

static PyObject *
exported(PyObject *module, const AioState *state)
{
    PyObject *result = PyDict_New();
    int status = result != NULL ? add_named(result, "SocketTransport", Py_NewRef(state->transport_type)) : -1;
    for (PyMethodDef *function = functions; status == 0 && function->ml_name != NULL; function++) {
        status = add_named(result, function->ml_name, PyCFunction_NewEx(function, module, NULL));
    }
    if (status < 0) {
        Py_CLEAR(result);
    }
    return result;
}

PyDoc_STRVAR(load_doc,
"_load_aio($module, /)\n--\n\n"
"Make the types of pyepoll.aio, and return these and its functions by name.");

static PyObject *
aio_load(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ModuleState *owner = PyModule_GetState(module);
    if (owner->aio == NULL) {
        AioState *state = PyMem_Calloc(1, sizeof(*state));
        if (state == NULL) {
            return PyErr_NoMemory();
        }
        owner->aio = state;
        if (make_names(state) < 0 || make_types(module, state) < 0) {
            aio_free(owner);
            return NULL;
        }
    }
    return exported(module, owner->aio);
}

PyMethodDef aio_functions[] = {
    {"_load_aio", aio_load, METH_NOARGS, load_doc},
    {NULL,        NULL,     0,           NULL    },
};

int
aio_traverse(const ModuleState *owner, visitproc visit, void *arg)
{
    const AioState *state = owner->aio;
    if (state == NULL) {
        return 0;
    }
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
void
aio_clear(ModuleState *owner)
{
    AioState *state = owner->aio;
    if (state != NULL) {
        Py_CLEAR(state->transport_type);
        Py_CLEAR(state->group_type);
    }
}

void
aio_free(ModuleState *owner)
{
    AioState *state = owner->aio;
    if (state == NULL) {
        return;
    }
    aio_clear(owner);
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
    owner->aio = NULL;
    PyMem_Free(state);
}

AioState *
aio_state_of(PyTypeObject *type)
{
    const ModuleState *owner = module_state_of(type);
    return owner != NULL ? owner->aio : NULL;
}
