/* How a connection ends. */
#include "aio/sockets.h"
#include "aio/stream/stream.h"

#include "aio/exits.h"

#include <errno.h>

int
stream_set_waiter(Stream *self, PyObject *error)
{
    if (!is_given(self->empty_waiter)) {
        return 0;
    }
    PyObject *waiter = Py_NewRef(self->empty_waiter);
    PyObject *done = PyObject_CallMethodNoArgs(waiter, stream_name(self, NAME_DONE));
    int truth = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    int status = truth;
    if (truth == 0) {
        PyObject *name = stream_name(self, error != NULL ? NAME_SET_EXCEPTION : NAME_SET_RESULT);
        status = status_of(PyObject_CallMethodOneArg(waiter, name, error != NULL ? error : Py_None));
    }
    Py_DECREF(waiter);
    return status < 0 ? -1 : 0;
}

int
stream_shutdown(Stream *self)
{
    PyObject *how = PyLong_FromLong(SHUT_WR);
    PyObject *result = how != NULL
                           ? PyObject_CallMethodOneArg(self->sock, stream_name(self, NAME_SHUTDOWN), how)
                           : NULL;
    Py_XDECREF(how);
    return status_of(result);
}

/* Stop a sendfile() that is under way: its watch of the fd goes before the fd is closed. */
static int
cancel_sendfile(Stream *self)
{
    return is_given(self->sendfile)
               ? status_of(PyObject_CallMethodNoArgs(self->sendfile, stream_name(self, NAME_CANCEL_SENDFILE)))
               : 0;
}

int
stream_schedule_loss(Stream *self, PyObject *error)
{
    self->conn_lost++;
    int status = cancel_sendfile(self) == 0
                     ? stream_call_soon_self(self, NAME_CONNECTION_LOST_CALLBACK, error)
                     : -1;
    if (status < 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        self->conn_lost--; /* abort() can try again */
    }
    return status;
}

static int
force_close(Stream *self, PyObject *error)
{
    /* asyncio sends in write(): only what the socket did not take is discarded. */
    int status = self->conn_lost > 0 ? 0 : stream_flush(self);
    if (status < 0 || self->conn_lost > 0) {
        return status;
    }
    queue_clear(&self->queue);
    if (self->writing && stream_unwatch(self, true) < 0) {
        return -1;
    }
    if (!self->closing) {
        self->closing = 1;
        if (stream_unwatch(self, false) < 0) {
            return -1;
        }
    }
    return stream_schedule_loss(self, error);
}

/* Report an exception that is no OSError to the loop's handler. */
static int
report(Stream *self, PyObject *error, PyObject *message)
{
    PyObject *context = Py_BuildValue("{sOsOsOsO}", "message", message, "exception", error, "transport", self,
                                      "protocol", self->protocol != NULL ? self->protocol : Py_None);
    PyObject *result = context != NULL
                           ? PyObject_CallMethodOneArg(
                                 self->loop, stream_name(self, NAME_CALL_EXCEPTION_HANDLER), context)
                           : NULL;
    Py_XDECREF(context);
    return status_of(result);
}

static int
log_error(Stream *self, PyObject *message)
{
    int debug = stream_is_debug(self);
    if (debug <= 0) {
        return debug;
    }
    PyObject *method = PyObject_GetAttrString(stream_state(self)->logger, "debug");
    PyObject *args = Py_BuildValue("(sOO)", "%r: %s", self, message);
    PyObject *names = Py_BuildValue("{sO}", "exc_info", Py_True);
    PyObject *result = method != NULL && args != NULL && names != NULL ? PyObject_Call(method, args, names)
                                                                       : NULL;
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(names);
    return status_of(result);
}

static int
fatal_error(Stream *self, PyObject *error, PyObject *message)
{
    if (!is_given(self->loop)) {
        return 0;
    }
    int status = PyErr_GivenExceptionMatches(error, PyExc_OSError) ? log_error(self, message)
                                                                   : report(self, error, message);
    return status == 0 ? force_close(self, error) : -1;
}

/* The report failed, with an exception that is set. If there was no memory, data may be missing: the protocol
 * must not get those that follow. */
static void
close_unreported(Stream *self, PyObject *error)
{
    PyObject *failure = PyErr_GetRaisedException();
    if (PyErr_GivenExceptionMatches(failure, PyExc_MemoryError) && force_close(self, error) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(failure);
}

int
stream_fail(Stream *self, const char *message)
{
    PyObject *error = PyErr_GetRaisedException();
    if (ends_program(error)) {
        PyErr_SetRaisedException(error);
        return -1;
    }
    PyObject *text = PyUnicode_FromString(message);
    /* A handler may call sys.exc_info(). */
    PyObject *handled = PyErr_GetHandledException();
    PyErr_SetHandledException(error);
    int status = text != NULL ? fatal_error(self, error, text) : -1;
    if (status < 0) {
        close_unreported(self, error);
    }
    PyErr_SetHandledException(handled);
    Py_XDECREF(handled);
    Py_XDECREF(text);
    Py_DECREF(error);
    return status;
}

PyObject *
stream_fatal_error_method(PyObject *self, PyObject *args)
{
    PyObject *error, *message = NULL;
    if (!PyArg_ParseTuple(args, "O|U:_fatal_error", &error, &message)) {
        return NULL;
    }
    message = message != NULL ? Py_NewRef(message) : PyUnicode_FromString("Fatal error on transport");
    int status = message != NULL ? fatal_error((Stream *)self, error, message) : -1;
    Py_XDECREF(message);
    return none_or_error(status);
}

PyObject *
stream_force_close(PyObject *self, PyObject *error)
{
    return none_or_error(force_close((Stream *)self, error));
}

PyObject *
stream_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_or_error(force_close((Stream *)self, Py_None));
}

PyObject *
stream_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (self->closing) {
        Py_RETURN_NONE;
    }
    if (stream_flush(self) < 0) {
        return NULL;
    }
    if (self->closing) {
        Py_RETURN_NONE;
    }
    self->closing = 1;
    if (stream_unwatch(self, false) < 0) {
        return NULL;
    }
    if (self->queue.count > 0) {
        Py_RETURN_NONE;
    }
    return none_or_error(stream_schedule_loss(self, Py_None));
}

static int
close_socket(Stream *self)
{
    return is_given(self->sock) ? socket_close(self->module->aio, self->sock) : 0;
}

static int
detach_server(Stream *self)
{
    PyObject *server = self->server;
    if (!is_given(server)) {
        return 0;
    }
    self->server = Py_NewRef(Py_None);
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *result = PyObject_CallMethodOneArg(server, stream_name(self, NAME_DETACH), (PyObject *)self);
#else
    PyObject *result = PyObject_CallMethodNoArgs(server, stream_name(self, NAME_DETACH));
#endif
    Py_DECREF(server);
    return status_of(result);
}

static int
release_waiter(Stream *self)
{
    if (!is_given(self->empty_waiter)) {
        return 0;
    }
    PyObject *error = PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
    int status = error != NULL ? stream_set_waiter(self, error) : -1;
    Py_XDECREF(error);
    return status;
}

/* All steps are taken, whatever fails; the first exception counts. */
int
stream_lost(Stream *self, PyObject *error)
{
    if (self->gone) {
        return 0;
    }
    self->gone = 1;
    self->closing = 1;
    int status = 0;
    if (is_given(self->protocol)) {
        PyObject *protocol = Py_NewRef(self->protocol);
        status = status_of(
            PyObject_CallMethodOneArg(protocol, stream_name(self, NAME_CONNECTION_LOST), error));
        Py_DECREF(protocol);
    }
    int (*const steps[])(Stream *) = {close_socket, detach_server, release_waiter};
    PyObject *first = status < 0 ? PyErr_GetRaisedException() : NULL;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (steps[i](self) < 0) {
            PyObject *next = PyErr_GetRaisedException();
            if (first == NULL) {
                first = next;
            }
            else {
                Py_DECREF(next);
            }
        }
    }
    Py_XSETREF(self->protocol, Py_NewRef(Py_None));
    Py_XSETREF(self->loop, Py_NewRef(Py_None));
    Py_CLEAR(self->writes);
    if (first != NULL) {
        PyErr_SetRaisedException(first);
        return -1;
    }
    return 0;
}

PyObject *
stream_call_connection_lost(PyObject *object, PyObject *error)
{
    Stream *self = (Stream *)object;
    return none_or_error(stream_lost(self, error));
}

/* The transport is garbage although it was not closed. */
void
stream_finalize(PyObject *object)
{
    Stream *self = (Stream *)object;
    if (self->gone || !is_given(self->sock)) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(object, 1, "unclosed transport %R", object) < 0) {
        PyErr_WriteUnraisable(object);
    }
    if (close_socket(self) < 0 || detach_server(self) < 0) {
        PyErr_WriteUnraisable(object);
    }
    PyErr_SetRaisedException(raised);
}
