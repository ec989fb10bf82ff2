/* The aio types and functions of the module, made when pyepoll.aio is first imported: programs without asyncio
 * do not pay for them. */
#include "aio/state.h"
#include "aio/stream/stream.h"

PyDoc_STRVAR(layout_read_handles_doc,
"_learn_handles($module, type, /)\n--\n\n"
"Take note of how type, which is asyncio.Handle, is laid out. Until then there are no batches.");

PyDoc_STRVAR(group_doc,
"_batch($module, loop, events, /)\n--\n\n"
"The handles of loop that wait for the events that its selector reports, as one handle; None where one is\n"
"cancelled or anything is not as asyncio makes it.");

static PyMethodDef functions[] = {
    {"_batch",         handles_group,       METH_VARARGS, group_doc              },
    {"_learn_handles", layout_read_handles, METH_O,       layout_read_handles_doc},
    {NULL,             NULL,                0,            NULL                   },
};

/* 0, or -1 with an exception. */
static int
make_names(AioState *state)
{
    static const char *const names[METHODS] = {
        [APPENDLEFT] = "appendleft",
        [CALLBACK_FAILED] = "_callback_failed",
        [CANCEL] = "cancel",
        [READY] = "_ready",
        [RUN] = "_run",
    };
    for (int i = 0; i < METHODS; i++) {
        state->methods[i] = PyUnicode_InternFromString(names[i]);
        if (state->methods[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Make the types; they are the module's. 0, or -1 with an exception. */
static int
make_types(PyObject *module, AioState *state)
{
    state->group_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &group_spec, NULL);
    return state->group_type != NULL ? stream_setup(module, &state->stream) : -1;
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

/* The same for functions. */
static int
add_functions(PyObject *result, PyObject *module, PyMethodDef *defined)
{
    int status = 0;
    for (PyMethodDef *function = defined; status == 0 && function->ml_name != NULL; function++) {
        status = add_named(result, function->ml_name, PyCFunction_NewEx(function, module, NULL));
    }
    return status;
}

static PyObject *
exported(PyObject *module, const AioState *state)
{
    PyObject *result = PyDict_New();
    if (result == NULL || add_named(result, "SocketTransport", Py_NewRef(state->stream.type)) < 0 ||
        add_named(result, "PendingWrites", Py_NewRef(state->stream.writes_type)) < 0 ||
        add_functions(result, module, functions) < 0 || add_functions(result, module, stream_functions) < 0) {
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
    Py_VISIT(state->group_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->handle_run);
    return stream_traverse_state(&state->stream, visit, arg);
}

/* Only these make a cycle. The rest is needed as long as there is a transport, which may still be used when
 * the module is garbage. */
void
aio_clear(ModuleState *owner)
{
    AioState *state = owner->aio;
    if (state != NULL) {
        Py_CLEAR(state->group_type);
        stream_clear_state(&state->stream);
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
    stream_free_state(&state->stream);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->handle_run);
    for (int i = 0; i < METHODS; i++) {
        Py_CLEAR(state->methods[i]);
    }
    owner->aio = NULL;
    PyMem_Free(state);
}

AioState *
aio_state_of(PyTypeObject *type)
{
    const ModuleState *owner = module_state_of(type);
    return owner != NULL ? owner->aio : NULL;
}
