/* The parts of asyncio that the transports need, looked up once. */
#include "aio/imports.h"
#include "aio/stream/stream.h"

static const char *const names[STREAM_NAMES] = {
    [NAME_ADD_READER] = "_add_reader",
    [NAME_ADD_WRITER] = "_add_writer",
    [NAME_ATTACH] = "_attach",
    [NAME_BUFFER] = "_buffer",
    [NAME_BUFFER_UPDATED] = "buffer_updated",
    [NAME_CALL_EXCEPTION_HANDLER] = "call_exception_handler",
    [NAME_CALL_SOON] = "call_soon",
    [NAME_CANCEL_SENDFILE] = "cancel",
    [NAME_CANCELLED] = "cancelled",
    [NAME_CHECK_THREAD] = "_check_thread",
    [NAME_CLOSE] = "close",
    [NAME_CONNECTION_LOST] = "connection_lost",
    [NAME_CONNECTION_LOST_CALLBACK] = "_call_connection_lost",
    [NAME_CONNECTION_MADE] = "connection_made",
    [NAME_CONTEXT] = "_context",
    [NAME_CREATE_FUTURE] = "create_future",
    [NAME_DATA_RECEIVED] = "data_received",
    [NAME_DETACH] = "_detach",
    [NAME_DONE] = "done",
    [NAME_EOF] = "_eof",
    [NAME_EOF_RECEIVED] = "eof_received",
    [NAME_EVENTS] = "events",
    [NAME_FEED_DATA] = "feed_data",
    [NAME_FILENO] = "fileno",
    [NAME_GET_BUFFER] = "get_buffer",
    [NAME_GET_KEY] = "get_key",
    [NAME_GET_DEBUG] = "get_debug",
    [NAME_GETPEERNAME] = "getpeername",
    [NAME_GETSOCKNAME] = "getsockname",
    [NAME_IS_CLOSED] = "is_closed",
    [NAME_LIMIT] = "_limit",
    [NAME_MAYBE_PAUSE] = "_maybe_pause_protocol",
    [NAME_MAYBE_RESUME] = "_maybe_resume_protocol",
    [NAME_PEERNAME] = "peername",
    [NAME_PENDING_WRITES] = "_pending_writes",
    [NAME_PROTO] = "proto",
    [NAME_SELECTOR] = "_selector",
    [NAME_READER_REFERENCE] = "_stream_reader_wr",
    [NAME_READ_READY] = "_read_ready",
    [NAME_RECV] = "recv",
    [NAME_RECV_INTO] = "recv_into",
    [NAME_REMOVE_READER] = "_remove_reader",
    [NAME_REMOVE_WRITER] = "_remove_writer",
    [NAME_SEND] = "send",
    [NAME_SENDMSG] = "sendmsg",
    [NAME_SET_EXCEPTION] = "set_exception",
    [NAME_SET_RESULT] = "set_result",
    [NAME_SHUTDOWN] = "shutdown",
    [NAME_SOCKET] = "socket",
    [NAME_SOCKNAME] = "sockname",
    [NAME_START_READING] = "_add_reader",
    [NAME_STREAM_READER] = "_stream_reader",
    [NAME_WAITER] = "_waiter",
    [NAME_WAKEUP_WAITER] = "_wakeup_waiter",
    [NAME_WRITE_READY] = "_write_ready",
};

/* 0; -1 with an exception. */
static int
import_objects(StreamState *state)
{
    state->buffered = imported("asyncio.protocols", "BufferedProtocol");
    state->logger = state->buffered != NULL ? imported("asyncio.log", "logger") : NULL;
    state->set_result = state->logger != NULL ? imported("asyncio.futures", "_set_result_unless_cancelled")
                                              : NULL;
    state->minus_one = PyLong_FromLong(-1);
    state->high_water = PyLong_FromLong(64 * 1024);
    state->low_water = PyLong_FromLong(16 * 1024);
    bool made = state->minus_one != NULL && state->high_water != NULL && state->low_water != NULL;
    return state->set_result != NULL && made ? 0 : -1;
}

int
stream_setup(PyObject *module, StreamState *state)
{
    for (int i = 0; i < STREAM_NAMES; i++) {
        state->names[i] = PyUnicode_InternFromString(names[i]);
        if (state->names[i] == NULL) {
            return -1;
        }
    }
    if (import_objects(state) < 0) {
        return -1;
    }
    stream_learn_classes(state);
    state->writes_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &writes_spec, NULL);
    state->type = state->writes_type != NULL ? stream_make_type(module) : NULL;
    return state->type != NULL ? 0 : -1;
}

int
stream_traverse_state(const StreamState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->type);
    Py_VISIT(state->writes_type);
    Py_VISIT(state->socket_type);
    Py_VISIT(state->transport_socket);
    Py_VISIT(state->buffered);
    for (int i = 0; i < STREAM_CLASSES; i++) {
        Py_VISIT(state->classes[i].type);
        Py_VISIT(state->classes[i].method);
        Py_VISIT(state->classes[i].code);
        Py_VISIT(state->classes[i].helper);
    }
    Py_VISIT(state->future);
    Py_VISIT(state->logger);
    Py_VISIT(state->set_result);
    return 0;
}

void
stream_clear_state(StreamState *state)
{
    Py_CLEAR(state->type);
    Py_CLEAR(state->writes_type);
    Py_CLEAR(state->transport_socket);
}

void
stream_free_state(StreamState *state)
{
    stream_clear_state(state);
    Py_CLEAR(state->socket_type);
    Py_CLEAR(state->buffered);
    for (int i = 0; i < STREAM_CLASSES; i++) {
        Py_CLEAR(state->classes[i].type);
        Py_CLEAR(state->classes[i].method);
        Py_CLEAR(state->classes[i].code);
        Py_CLEAR(state->classes[i].helper);
    }
    Py_CLEAR(state->future);
    Py_CLEAR(state->logger);
    Py_CLEAR(state->set_result);
    Py_CLEAR(state->minus_one);
    Py_CLEAR(state->low_water);
    Py_CLEAR(state->high_water);
    for (int i = 0; i < STREAM_NAMES; i++) {
        Py_CLEAR(state->names[i]);
    }
    PyMem_Free(atomic_exchange(&state->spare, NULL));
}

PyDoc_STRVAR(use_sockets_doc,
"_use_sockets($module, type, wrapper, /)\n--\n\n"
"Sockets of type itself are read and written in C; others, and all if it is not CPython's own class, by\n"
"their methods. wrapper(sock, reference to the transport) makes the result of get_extra_info(\"socket\").");

static PyObject *
use_sockets(PyObject *module, PyObject *args)
{
    StreamState *state = &aio_state(module)->stream;
    PyObject *type, *wrapper;
    if (!PyArg_ParseTuple(args, "O!O:_use_sockets", &PyType_Type, &type, &wrapper)) {
        return NULL;
    }
    Py_ssize_t offset = offset_of_closed(type);
    /* Another class may replace socket.socket, as eventlet's does. */
    Py_XSETREF(state->socket_type, offset >= 0 ? (PyTypeObject *)Py_NewRef(type) : NULL);
    state->closed_offset = offset;
    Py_XSETREF(state->transport_socket, Py_NewRef(wrapper));
    Py_RETURN_NONE;
}

PyMethodDef stream_functions[] = {
    {"_use_sockets", use_sockets, METH_VARARGS, use_sockets_doc},
    {NULL,           NULL,        0,            NULL           },
};
