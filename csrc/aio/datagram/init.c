/* The state that datagram transports share, and how their type is derived from asyncio's classes. */
#include "aio/datagram/datagram.h"
#include "aio/datagram/state.h"
#include "aio/imports.h"

#include <structmember.h>

static int
make_method_names(DatagramState *state)
{
    static const char *const names[DATAGRAM_METHODS] = {
        [DATAGRAM_RECEIVED] = "datagram_received",
        [ERROR_RECEIVED] = "error_received",
        [DATAGRAM_FAILED] = "_failed",
        [KEEP] = "_keep",
        [READ_SLOWLY] = "_read_slowly",
        [SEND_SLOWLY] = "_send_slowly",
    };
    for (int i = 0; i < DATAGRAM_METHODS; i++) {
        state->names[i] = PyUnicode_InternFromString(names[i]);
        if (state->names[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Whether the struct has room for the slots of the base, which may have nothing else. 0, or -1 with an
 * exception. */
static int
check_base(const PyTypeObject *type)
{
    const PyTypeObject *base = type->tp_base;
    if (base->tp_basicsize <= (Py_ssize_t)offsetof(Datagram, sock) && base->tp_dictoffset == 0 &&
        base->tp_weaklistoffset == 0) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s is not as in the versions of CPython that pyepoll knows",
                 base->tp_name);
    return -1;
}

/* Find the attributes that datagram_is_plain() looks at. 0, or -1 with an exception. */
static int
read_socket_type(DatagramState *state)
{
    PyObject *type = imported("socket", "socket");
    if (type == NULL) {
        return -1;
    }
    state->closed_offset = offset_of_closed(type);
    if (state->closed_offset >= 0) {
        state->socket_type = (PyTypeObject *)Py_NewRef(type);
    }
    Py_DECREF(type);
    return 0;
}

int
datagram_init(PyObject *module, DatagramState *state)
{
    PyObject *flow_control = imported("asyncio.transports", "_FlowControlMixin");
    PyObject *datagram = flow_control != NULL ? imported("asyncio", "DatagramTransport") : NULL;
    PyObject *bases = datagram != NULL ? PyTuple_Pack(2, flow_control, datagram) : NULL;
    if (bases != NULL) {
        state->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &datagram_spec, bases);
    }
    Py_XDECREF(bases);
    Py_XDECREF(datagram);
    Py_XDECREF(flow_control);
    return state->type != NULL && check_base(state->type) == 0 && make_method_names(state) == 0
               ? read_socket_type(state)
               : -1;
}

int
datagram_traverse(const DatagramState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->type);
    Py_VISIT(state->socket_type);
    return 0;
}

void
datagram_clear(DatagramState *state)
{
    Py_CLEAR(state->type);
}

void
datagram_free(DatagramState *state)
{
    datagram_clear(state);
    Py_CLEAR(state->socket_type);
    for (int i = 0; i < DATAGRAM_METHODS; i++) {
        Py_CLEAR(state->names[i]);
    }
    PyMem_Free(atomic_exchange(&state->spare, NULL));
}
