#include "aio/connect.h"

#include "aio/arrived.h"
#include "aio/override.h"
#include "aio/readers.h"
#include "aio/schedule.h"
#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/sockop.h"

#include <poll.h>

/* Whether the address is as asyncio's resolver returns it: then it is the one in the text of an error. */
static bool
read_address(PyObject *object, int family, SockAddr *address)
{
    return sockaddr_from_python(object, family, address) &&
           PyTuple_GET_SIZE(object) == (family == AF_INET ? 2 : 4);
}

/* connect() of a plain socket. 1 if it is connected, 0 while that is under way, -1 with an exception. */
static int
start_connect(const AioState *state, PyObject *sock, PyObject *object, const SockAddr *address)
{
    if (PySys_Audit("socket.connect", "OO", sock, object) < 0) {
        return -1;
    }
    int fd = socket_fd(state, sock); /* -1 if the hook has closed it */
    if (PyErr_Occurred()) {
        return -1;
    }
    int status = connect(fd, &address->any, address->length);
    /* A connection to a listener on this machine is made already. Yet the caller waits for it, as for any
     * other: with no turn between many of them, a server of the same loop could accept none. */
    bool under_way = status < 0 && (errno == EINPROGRESS || errno == EALREADY || would_block(errno));
    if (status < 0 && !under_way) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return !under_way;
}

PyObject *
connect_try(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    AioState *state = aio_state(module);
    PlainSocket plain;
    SockAddr address;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_try_connect() takes a socket and an address");
        return NULL;
    }
    if (!socket_is_plain(state, args[0], &plain) || !read_address(args[1], plain.family, &address) ||
        !socket_has_own_methods(state)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int status = start_connect(state, args[0], args[1], &address);
    return status >= 0 ? PyBool_FromLong(status) : NULL;
}

/* The steps of asyncio's create_connection() that are done here in one, and those that follow. */
static const uint64_t open_hooks = HOOK(CONNECT_CALLBACK) | HOOK(CONNECT_SOCK) | HOOK(CREATE_TRANSPORT) |
                                   HOOK(ENSURE_RESOLVED) | HOOK(SOCK_CONNECT);

static bool
may_open(EventLoop *self)
{
    const LoopState *loop = &self->state->loop;
    const LoopGlobal *module = &loop->globals[GLOBAL_SOCKET_MODULE];
    return schedule_is_plain(self, open_hooks) && loop_global(module) == module->value &&
           loop_global(&loop->globals[GLOBAL_SOCKET_CLASS]) == (PyObject *)self->state->fds.socket_type &&
           socket_has_own_methods(self->state);
}

/* The address for a numeric host, as asyncio makes it: a new reference; NULL, with or without an exception,
 * for another host. */
static PyObject *
find_address(PyObject *host, PyObject *port, SockAddr *address)
{
    if (!PyLong_CheckExact(port)) {
        return NULL;
    }
    PyObject *v4 = PyTuple_Pack(2, host, port);
    if (v4 == NULL || sockaddr_from_python(v4, AF_INET, address)) {
        return v4;
    }
    PyObject *v6 = sockaddr_from_python(v4, AF_INET6, address) ? Py_BuildValue("OOii", host, port, 0, 0)
                                                               : NULL;
    Py_DECREF(v4);
    return v6;
}

/* A new socket that does not block. */
static PyObject *
new_socket(AioState *state, int family)
{
    const PlainSocket made = {-1, family, SOCK_STREAM, IPPROTO_TCP};
    bool owned;
    PyObject *sock = socket_make(state, &made, &owned);
    PyObject *done = sock != NULL
                         ? PyObject_CallMethodOneArg(sock, state->fds.names[FDS_SETBLOCKING], Py_False)
                         : NULL;
    if (sock != NULL && done == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(done);
    return sock;
}

/* Remove the writer, with the exception that is set. */
static void
remove_writer(EventLoop *self, PyObject *sock)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (readers_remove_directly(self->state, WRITER, sock, (PyObject *)self) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(raised);
}

/* Whether a connection that is under way has been made already, as one to a listener on this machine is. That
 * of a failed one is left to the loop, which reads the error; so is any other where `_run_once` is replaced,
 * as only ours knows of arrived.h. */
static bool
is_made(EventLoop *self, int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLOUT};
    return (loop_overridden(self) & HOOK(RUN_ONCE)) == 0 && poll(&entry, 1, 0) == 1 &&
           entry.revents == POLLOUT;
}

/* Give the future its result in the next turn, as if the loop had watched the socket. So a server of the same
 * loop gets its turns between many connections, and those to it are made in the same order. None for the
 * handle, or NULL with an exception. */
static PyObject *
complete_later(EventLoop *self, PyObject *future)
{
    PyObject *const args[] = {future, Py_None};
    const Call call = {
        .loop = (PyObject *)self, .callback = self->state->stream.set_result, .args = args, .count = 2};
    return arrived_add(self, &call) == 0 ? Py_NewRef(Py_None) : NULL;
}

/* The loop watches the socket: the handle, or NULL with an exception. */
static PyObject *
complete_when_ready(EventLoop *self, PyObject *future, PyObject *sock, PyObject *address)
{
    PyObject *done = PyObject_GetAttr((PyObject *)self, self->state->loop.names[LOOP_CONNECTION_DONE]);
    PyObject *const args[] = {sock, done, future, sock, address};
    PyObject *handle = done != NULL ? readers_add_checked(self, WRITER, args, 5) : NULL;
    Py_XDECREF(done);
    return handle;
}

/* No transport uses the fd. Returns it; -1 with an exception. */
static int
free_fd(EventLoop *self, PyObject *sock)
{
    int fd = socket_fd(self->state, sock);
    PyObject *object = PyErr_Occurred() ? NULL : PyLong_FromLong(fd);
    int status = object != NULL ? readers_ensure_no_transport(self, object) : -1;
    Py_XDECREF(object);
    return status == 0 ? fd : -1;
}

/* (sock, fd, future, handle): the future gets the outcome. */
static PyObject *
await_outcome(EventLoop *self, PyObject *sock, PyObject *address)
{
    int fd = free_fd(self, sock);
    PyObject *future = fd >= 0 ? PyObject_CallMethodNoArgs((PyObject *)self,
                                                           self->state->loop.method_names[CREATE_FUTURE])
                               : NULL;
    PyObject *handle = future == NULL      ? NULL
                       : is_made(self, fd) ? complete_later(self, future)
                                           : complete_when_ready(self, future, sock, address);
    PyObject *result = handle != NULL ? Py_BuildValue("OiOO", sock, fd, future, handle) : NULL;
    if (result == NULL && handle != NULL && handle != Py_None) {
        remove_writer(self, sock); /* without memory */
    }
    Py_XDECREF(handle);
    Py_XDECREF(future);
    return result;
}

PyObject *
connect_open(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    SockAddr address;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_open_connection() takes a host and a port");
        return NULL;
    }
    PyObject *object = may_open(self) ? find_address(args[0], args[1], &address) : NULL;
    if (object == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    AioState *state = self->state;
    PyObject *sock = new_socket(state, address.any.sa_family), *result = NULL;
    if (sock != NULL) {
        int status = start_connect(state, sock, object, &address);
        result = status > 0    ? Py_BuildValue("OiOO", sock, -1, Py_None, Py_None)
                 : status == 0 ? await_outcome(self, sock, object)
                               : NULL;
        if (result == NULL) {
            socket_close_after_error(state, sock);
        }
    }
    Py_XDECREF(sock);
    Py_DECREF(object);
    return result;
}

/* The outcome of connect(): 0; -1 with the exception that asyncio raises. */
static int
read_outcome(const AioState *state, PyObject *sock, PyObject *address)
{
    int fd = socket_fd(state, sock), error = 0;
    socklen_t size = sizeof(error);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (error == 0) {
        return 0;
    }
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *raised = text != NULL ? PyObject_CallFunction(PyExc_OSError, "iN", error, text) : NULL;
    if (raised != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        Py_DECREF(raised);
    }
    return -1;
}

PyObject *
connect_done(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    const AioState *state = self->state;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_connection_done() takes a future, a socket and an address");
        return NULL;
    }
    PyObject *done = PyObject_CallMethodNoArgs(args[0], state->stream.names[NAME_DONE]);
    if (done == NULL || done == Py_True) {
        return done;
    }
    Py_DECREF(done);
    if (read_outcome(state, args[1], args[2]) == 0) {
        return PyObject_CallMethodOneArg(args[0], state->stream.names[NAME_SET_RESULT], Py_None);
    }
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear(); /* it is called again */
        Py_RETURN_NONE;
    }
    PyObject *error = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(args[0], state->stream.names[NAME_SET_EXCEPTION], error);
    Py_DECREF(error);
    return result;
}
