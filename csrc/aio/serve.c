#include "aio/serve.h"

#include "aio/accept.h"
#include "aio/exits.h"
#include "aio/override.h"
#include "aio/schedule.h"
#include "aio/sockets.h"
#include "aio/stream/stream.h"

#include <poll.h>

/* The arguments of _serve_ready(). */
enum { READY_FACTORY, READY_SOCK, READY_SERVER, READY_LIMIT, READY_CONTEXT, READY_ARGS };

/* The arguments of _serve(). */
enum { SERVE_FACTORY, SERVE_SOCK, SERVE_PEERNAME, SERVE_SERVER, SERVE_CONTEXT, SERVE_ARGS };

/* loop._make_socket_transport(sock, protocol, extra=..., server=..., context=...); without `context` if it is
 * None, as a program's method may not know it. A new reference, or NULL with an exception. */
static PyObject *
make_transport(EventLoop *self, PyObject *const *args, PyObject *protocol)
{
    const LoopState *state = &self->state->loop;
    PyObject *extra = PyDict_New();
    if (extra == NULL ||
        PyDict_SetItem(extra, self->state->stream.names[NAME_PEERNAME], args[SERVE_PEERNAME]) < 0) {
        Py_XDECREF(extra);
        return NULL;
    }
    PyObject *given[] = {(PyObject *)self,   args[SERVE_SOCK],   protocol, extra,
                         args[SERVE_SERVER], args[SERVE_CONTEXT]};
    PyObject *transport = PyObject_VectorcallMethod(state->method_names[MAKE_TRANSPORT], given, 3,
                                                    state->transport_names[args[SERVE_CONTEXT] != Py_None]);
    Py_DECREF(extra);
    return transport;
}

/* asyncio reports it in debug mode only. 0; -1 with the exception if it ends the program, or another. */
static int
report_failure(EventLoop *self, PyObject *protocol)
{
    PyObject *error = PyErr_GetRaisedException();
    if (ends_program(error)) {
        PyErr_SetRaisedException(error);
        return -1;
    }
    int debug = loop_member(&self->debug) != NULL ? PyObject_IsTrue(self->debug) : 0, status = debug;
    if (debug > 0) {
        PyObject *context = Py_BuildValue(
            "{sssO}", "message", "Error on transport creation for incoming connection", "exception", error);
        status = context != NULL && protocol != NULL ? PyDict_SetItemString(context, "protocol", protocol)
                                                     : 0;
        PyObject *result = context != NULL && status == 0
                               ? PyObject_CallMethodOneArg(
                                     (PyObject *)self, self->state->stream.names[NAME_CALL_EXCEPTION_HANDLER],
                                     context)
                               : NULL;
        status = result != NULL ? 0 : -1;
        Py_XDECREF(result);
        Py_XDECREF(context);
    }
    Py_DECREF(error);
    return status < 0 ? -1 : 0;
}

PyObject *
serve(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != SERVE_ARGS) {
        PyErr_SetString(PyExc_TypeError, "_serve() takes five arguments");
        return NULL;
    }
    PyObject *protocol = PyObject_CallNoArgs(args[SERVE_FACTORY]);
    PyObject *transport = protocol != NULL ? make_transport(self, args, protocol) : NULL;
    int status = 0;
    if (transport == NULL) {
        socket_close_after_error(self->state, args[SERVE_SOCK]); /* asyncio leaves that to the collector */
        status = report_failure(self, protocol);
    }
    Py_XDECREF(transport);
    Py_XDECREF(protocol);
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

/* loop.call_soon(). 0, or -1 with an exception. */
static int
call_soon(EventLoop *self, const Call *call)
{
    int status = schedule_directly(self->state, call);
    if (status != 0) {
        return status < 0 ? -1 : 0;
    }
    /* Those of _serve(), and the context. */
    PyObject *args[2 + SERVE_ARGS + 1] = {call->loop, call->callback};
    size_t count = 2;
    for (Py_ssize_t i = 0; i < call->count; i++) {
        args[count++] = call->args[i];
    }
    args[count] = call->context;
    PyObject *handle = PyObject_VectorcallMethod(self->state->loop.method_names[CALL_SOON], args, count,
                                                 call->context != NULL ? self->state->loop.context_names
                                                                       : NULL);
    Py_XDECREF(handle);
    return handle != NULL ? 0 : -1;
}

/* _serve() for a connection, in the next turn: as asyncio's task would be. 0, or -1 with an exception. */
static int
serve_later(EventLoop *self, PyObject *callback, PyObject *const *given, PyObject *accepted)
{
    PyObject *context = given[READY_CONTEXT] != Py_None ? PyContext_Copy(given[READY_CONTEXT])
                                                        : Py_NewRef(Py_None);
    if (context == NULL) {
        return -1;
    }
    PyObject *const args[] = {given[READY_FACTORY], PyTuple_GET_ITEM(accepted, 0),
                              PyTuple_GET_ITEM(accepted, 1), given[READY_SERVER], context};
    const Call call = {.loop = (PyObject *)self,
                       .callback = callback,
                       .args = args,
                       .count = SERVE_ARGS,
                       .context = context != Py_None ? context : NULL};
    int status = call_soon(self, &call);
    Py_DECREF(context);
    return status;
}

static bool
may_serve(EventLoop *self)
{
    return loop_member(&self->task_factory) == Py_None &&
           schedule_is_plain(self, HOOK(ACCEPT_CONNECTION) | BOTH_HOOKS(CREATE_TASK));
}

/* Accept one connection. 1; 0 if there is none; -1 with an exception. */
static int
accept_one(EventLoop *self, const PlainSocket *listener, PyObject *callback, PyObject *const *given)
{
    PyObject *accepted = accept_from(self->state, listener);
    if (accepted == NULL && PyErr_ExceptionMatches(PyExc_ConnectionAbortedError)) {
        PyErr_Clear();
        return 1;
    }
    int status = accepted == NULL      ? -1
                 : accepted == Py_None ? 0
                                       : serve_later(self, callback, given, accepted);
    bool served = status == 0 && accepted != Py_None;
    Py_XDECREF(accepted);
    return status < 0 ? -1 : served;
}

/* Whether a connection waits. accept() makes a file before it looks, so a poll() costs a fraction of it. */
static bool
has_connection(int listener)
{
    struct pollfd entry = {.fd = listener, .events = POLLIN};
    return poll(&entry, 1, 0) == 1;
}

PyObject *
serve_ready(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    PlainSocket listener;
    long limit = nargs == READY_ARGS ? PyLong_AsLong(args[READY_LIMIT]) : -1;
    if (limit < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "_serve_ready() takes five arguments; the limit is at least 0");
        }
        return NULL;
    }
    if (!may_serve(self) || !socket_is_plain(self->state, args[READY_SOCK], &listener)) {
        Py_RETURN_FALSE;
    }
    PyObject *callback = PyObject_GetAttr((PyObject *)self, self->state->loop.names[LOOP_SERVE]);
    int status = callback != NULL ? 1 : -1;
    Py_ssize_t closed = self->state->stream.closed_offset;
    for (long i = 0; i < limit && status > 0 && aio_slot(args[READY_SOCK], closed) == Py_False; i++) {
        status = i == 0 || has_connection(listener.fd) ? accept_one(self, &listener, callback, args) : 0;
    }
    Py_XDECREF(callback);
    return status >= 0 ? Py_NewRef(Py_True) : NULL;
}
