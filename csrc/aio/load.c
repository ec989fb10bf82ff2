/* The aio types and functions of the module, made when pyepoll.aio is first imported: programs without
 * asyncio do not pay for them. */
#include "aio/accept.h"
#include "aio/attempt.h"
#include "aio/connect.h"
#include "aio/state.h"

#include "aio/loop_load.h"
#include "aio/loop_type.h"
#include "aio/pipe/pipe.h"
#include "aio/sockop.h"
#include "aio/stream/stream.h"

PyDoc_STRVAR(loop_learn_doc,
"_learn_loop($module, type, stock, selector, report, /)\n--\n\n"
"Give type, a subclass of _LoopBase and of stock, asyncio's event loop, its methods in C. They wait in a\n"
"selector of exactly the given type without a step through Python, and call report(handle, error) for an\n"
"exception in a callback.");

PyDoc_STRVAR(accept_doc, ACCEPT_DOC);
PyDoc_STRVAR(connect_doc, CONNECT_DOC);

PyDoc_STRVAR(attempt_receive_doc, ATTEMPT_RECEIVE_DOC);
PyDoc_STRVAR(attempt_receive_into_doc, ATTEMPT_RECEIVE_INTO_DOC);
PyDoc_STRVAR(sockop_receive_doc, SOCKOP_RECEIVE_DOC);
PyDoc_STRVAR(sockop_receive_into_doc, SOCKOP_RECEIVE_INTO_DOC);
PyDoc_STRVAR(sockop_send_doc, SOCKOP_SEND_DOC);

PyDoc_STRVAR(fds_learn_doc,
"_learn_fds($module, loop, selector, socket_type, weak_dict, /)\n--\n\n"
"Give loop, a class of the package, and selector methods in C. The rest are the standard library's: socket\n"
"and WeakValueDictionary.");

PyDoc_STRVAR(pipes_learn_doc, LEARN_PIPES_DOC);

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef functions[] = {
    {"_learn_fds", fds_learn, METH_VARARGS, fds_learn_doc},
    {"_learn_loop", loop_learn, METH_VARARGS, loop_learn_doc},
    {"_learn_pipes", pipe_learn, METH_VARARGS, pipes_learn_doc},
    {"_recv_into_ready", FAST(attempt_receive_into), attempt_receive_into_doc},
    {"_recv_ready", FAST(attempt_receive), attempt_receive_doc},
    {"_try_accept", accept_try, METH_O, accept_doc},
    {"_try_connect", FAST(connect_try), connect_doc},
    {"_try_recv", FAST(sockop_receive), sockop_receive_doc},
    {"_try_recv_into", FAST(sockop_receive_into), sockop_receive_into_doc},
    {"_try_send", FAST(sockop_send), sockop_send_doc},
    {NULL, NULL, 0, NULL},
};

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
    const struct {
        const char *name;
        PyTypeObject *type;
    } types[] = {
        {"SocketTransport",   state->stream.type       },
        {"PendingWrites",     state->stream.writes_type},
        {"LoopSelector",      state->fds.base_type     },
        {"_LoopBase",         state->loop.base_type    },
        {"ReadyQueue",        state->loop.queue_type   },
        {"Handle",            state->loop.handle_type  },
        {"TimerHandle",       state->loop.timer_type   },
        {"DatagramTransport", state->datagram.type     },
        {"_PipeBase",         state->pipe.base_type    },
    };
    int status = result != NULL ? 0 : -1;
    for (size_t i = 0; status == 0 && i < sizeof(types) / sizeof(types[0]); i++) {
        PyObject *type = types[i].type != NULL ? (PyObject *)types[i].type : Py_None;
        status = add_named(result, types[i].name, Py_NewRef(type));
    }
    PyMethodDef *const tables[] = {functions, stream_functions};
    for (size_t i = 0; status == 0 && i < sizeof(tables) / sizeof(tables[0]); i++) {
        for (PyMethodDef *function = tables[i]; status == 0 && function->ml_name != NULL; function++) {
            status = add_named(result, function->ml_name, PyCFunction_NewEx(function, module, NULL));
        }
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
        state->owner = owner;
        if (stream_setup(module, &state->stream) < 0 || loop_init(module, &state->loop) < 0 ||
            fds_init(module, &state->fds) < 0 || datagram_init(module, &state->datagram) < 0 ||
            pipe_init(module, &state->pipe) < 0) {
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
    int status = loop_state_traverse(&state->loop, visit, arg);
    if (status != 0) {
        return status;
    }
    status = stream_traverse_state(&state->stream, visit, arg);
    if (status != 0) {
        return status;
    }
    status = fds_traverse(&state->fds, visit, arg);
    if (status != 0) {
        return status;
    }
    status = datagram_traverse(&state->datagram, visit, arg);
    return status != 0 ? status : pipe_traverse(&state->pipe, visit, arg);
}

/* Only these make a cycle. The rest is needed as long as there is a transport, which may still be used when
 * the module is garbage. */
void
aio_clear(ModuleState *owner)
{
    AioState *state = owner->aio;
    if (state != NULL) {
        stream_clear_state(&state->stream);
        loop_state_clear(&state->loop);
        fds_clear(&state->fds);
        datagram_clear(&state->datagram);
        pipe_clear(&state->pipe);
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
    loop_state_free(&state->loop);
    fds_free(&state->fds);
    datagram_free(&state->datagram);
    pipe_free(&state->pipe);
    owner->aio = NULL;
    PyMem_Free(state);
}

AioState *
aio_state_of(PyTypeObject *type)
{
    const ModuleState *owner = module_state_of(type);
    return owner != NULL ? owner->aio : NULL;
}
