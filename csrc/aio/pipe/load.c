/* The state that pipe transports share, and how their classes get the methods in C. */
#include "aio/imports.h"
#include "aio/pipe/pipe.h"
#include "base/subclass.h"

PyDoc_STRVAR(base_doc, "The base of pyepoll's pipe transports: it tells their methods in C the module.");

static PyType_Slot base_slots[] = {
    {Py_tp_doc, (void *)base_doc},
    {0,         NULL            },
};

static PyType_Spec base_spec = {
    .name = "pyepoll._epoll._PipeBase",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = base_slots,
};

static const char *const names[PIPE_NAMES] = {
    [PIPE_DATA_RECEIVED] = "data_received",
    [PIPE_END] = "_end_of_file",
    [PIPE_FAILED] = "_failed",
    [PIPE_KEEP] = "_keep",
    [PIPE_READ_SLOWLY] = "_read_slowly",
    [PIPE_WRITE_SLOWLY] = "_write_slowly",
};

int
pipe_init(PyObject *module, PipeState *state)
{
    for (int i = 0; i < PIPE_NAMES; i++) {
        if ((state->names[i] = PyUnicode_InternFromString(names[i])) == NULL) {
            return -1;
        }
    }
    state->zero = PyLong_FromLong(0);
    state->base_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &base_spec, NULL);
    return state->base_type != NULL && state->zero != NULL ? 0 : -1;
}

int
pipe_traverse(const PipeState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->base_type);
    return 0;
}

void
pipe_clear(PipeState *state)
{
    Py_CLEAR(state->base_type);
}

void
pipe_free(PipeState *state)
{
    pipe_clear(state);
    Py_CLEAR(state->zero);
    for (int i = 0; i < PIPE_NAMES; i++) {
        Py_CLEAR(state->names[i]);
    }
    Py_XDECREF(atomic_exchange(&state->spare, NULL));
}

PyDoc_STRVAR(read_ready_doc,
"_read_ready($self, /)\n--\n\n"
"The pipe is readable: read once, and pass the data to the protocol.");

PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Write data to the pipe at once, and keep a copy of the rest, if it does not accept all.\n\n"
"data: bytes, bytearray or memoryview. An error of the system call closes the transport, and is passed to\n"
"the protocol's connection_lost(). See asyncio.WriteTransport.write().");

static PyMethodDef read_methods[] = {
    {"_read_ready", pipe_read_ready, METH_NOARGS, read_ready_doc},
    {NULL,          NULL,            0,           NULL          },
};

static PyMethodDef write_methods[] = {
    {"write", (PyCFunction)(void (*)(void))pipe_write, METH_FASTCALL | METH_KEYWORDS, write_doc},
    {NULL,    NULL,                                    0,                             NULL     },
};

/* Find slots of a class, and give it its methods. 0, or -1 with an exception. */
static int
learn_class(const PipeState *state, PyObject *type, const char *const *slot_names, int count,
            Py_ssize_t *slots, PyMethodDef *methods)
{
    if (!PyType_IsSubtype((PyTypeObject *)type, state->base_type)) {
        PyErr_Format(PyExc_TypeError, "%R is not a subclass of _PipeBase", type);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        Py_ssize_t offset = offset_of_slot(type, slot_names[i]);
        if (offset < 0) {
            PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, slot_names[i]);
            return -1;
        }
        slots[i] = offset;
    }
    return subclass_copy_methods(type, methods);
}

PyObject *
pipe_learn(PyObject *module, PyObject *args)
{
    static const char *const read_slots[READ_SLOTS] = {
        [READ_FD] = "_fileno",
        [READ_MAX_SIZE] = "max_size",
        [READ_PROTOCOL] = "_protocol",
    };
    static const char *const write_slots[WRITE_SLOTS] = {
        [WRITE_BUFFER] = "_buffer",
        [WRITE_CLOSING] = "_closing",
        [WRITE_CONN_LOST] = "_conn_lost",
        [WRITE_FD] = "_fileno",
    };
    PipeState *state = &aio_state(module)->pipe;
    PyObject *read, *write;
    if (!PyArg_ParseTuple(args, "O!O!:_learn_pipes", &PyType_Type, &read, &PyType_Type, &write) ||
        learn_class(state, read, read_slots, READ_SLOTS, state->read_slots, read_methods) < 0 ||
        learn_class(state, write, write_slots, WRITE_SLOTS, state->write_slots, write_methods) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
