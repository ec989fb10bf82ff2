/* The calls of a transport to its loop: in C where the loop is ours and the method is not replaced, or by the
 * method. Other code may run in each, and change the transport. */
#include "aio/stream/stream.h"

#include "aio/readers.h"
#include "aio/schedule.h"

static bool
has_no_loop(const Stream *self)
{
    return !is_given(self->loop);
}

/* The object that the loop is asked to watch: a new reference. With the socket itself, and not its fd,
 * LoopSelector makes its system calls later, for all changes of a turn. A socket that is closed has no fd. */
static PyObject *
watched_file(const Stream *self)
{
    return stream_open_fd(self) >= 0 ? Py_NewRef(self->sock) : PyLong_FromLong(self->fd);
}

/* Whether code runs in a context now. */
static bool
is_entered(PyObject *context)
{
    bool entered = PyContext_Enter(context) < 0;
    if (entered) {
        PyErr_Clear();
    }
    else {
        PyContext_Exit(context);
    }
    return entered;
}

/* The context of a handle that may run while another callback of the connection does, in a loop that this
 * callback runs: a copy, as nothing runs in a context that is entered. The context that a caller gave is for
 * all callbacks. A new reference; NULL with an exception. */
static PyObject *
context_beside(const Stream *self)
{
    return self->context_given ? Py_NewRef(self->context) : PyContext_Copy(self->context);
}

/* The context of the next reads. As above. */
static PyObject *
context_of_reads(Stream *self)
{
    if (!self->context_given && is_entered(self->context)) {
        PyObject *copy = PyContext_Copy(self->context);
        if (copy == NULL) {
            return NULL;
        }
        Py_SETREF(self->context, copy);
    }
    return Py_NewRef(self->context);
}

/* By the method of the loop, which makes the handle with a copy of the current context. Where that cannot be
 * replaced, the fd is watched all the same. */
static int
watch_by_method(Stream *self, bool writing, PyObject *file, const Call *call)
{
    PyObject *args[] = {call->loop, file, call->callback};
    int name = writing ? NAME_ADD_WRITER : NAME_ADD_READER;
    PyObject *handle = PyObject_VectorcallMethod(stream_name(self, name), args, 3, NULL);
    int status = handle != NULL ? 0 : -1;
    if (handle != NULL && writing) {
        self->writing = 1;
    }
    if (handle != NULL && handle != Py_None) {
        status = PyObject_SetAttr(handle, stream_name(self, NAME_CONTEXT), call->context);
    }
    Py_XDECREF(handle);
    return status;
}

/* A reader gets the connection's context, a writer a copy of it: a task that calls resume_reading() must not
 * give its own to all later reads. */
int
stream_watch(Stream *self, bool writing)
{
    if (has_no_loop(self)) {
        return 0;
    }
    PyObject *loop = Py_NewRef(self->loop);
    PyObject *callback = PyObject_GetAttr((PyObject *)self,
                                          stream_name(self, writing ? NAME_WRITE_READY : NAME_READ_READY));
    PyObject *file = callback != NULL ? watched_file(self) : NULL;
    PyObject *context = file == NULL ? NULL : writing ? context_beside(self) : context_of_reads(self);
    const Call call = {.loop = loop, .callback = callback, .context = context};
    int status = -1;
    if (context != NULL) {
        status = readers_add_directly(self->module->aio, writing ? WRITER : READER, file, &call);
    }
    if (status > 0 && writing) {
        self->writing = 1;
    }
    if (status == 0) {
        status = watch_by_method(self, writing, file, &call);
    }
    Py_DECREF(loop);
    Py_XDECREF(callback);
    Py_XDECREF(file);
    Py_XDECREF(context);
    return status < 0 ? -1 : 0;
}

int
stream_unwatch(Stream *self, bool writing)
{
    if (writing) {
        self->writing = 0;
    }
    if (has_no_loop(self)) {
        return 0;
    }
    PyObject *file = watched_file(self), *loop = Py_NewRef(self->loop);
    int status = file != NULL
                     ? readers_remove_directly(self->module->aio, writing ? WRITER : READER, file, loop)
                     : -1;
    if (file != NULL && status == 0) {
        PyObject *args[] = {loop, file};
        int name = writing ? NAME_REMOVE_WRITER : NAME_REMOVE_READER;
        status = status_of(PyObject_VectorcallMethod(stream_name(self, name), args, 2, NULL));
    }
    Py_XDECREF(file);
    Py_DECREF(loop);
    return status < 0 ? -1 : 0;
}

/* By the method of the loop. The handle gets the context of the call, if it has one. */
static int
schedule_by_method(Stream *self, const Call *call)
{
    PyObject *args[5] = {call->loop, call->callback};
    size_t count = 2;
    for (Py_ssize_t i = 0; i < call->count; i++) {
        args[count++] = call->args[i];
    }
    PyObject *names = NULL;
    if (self->context_given) {
        args[count] = self->context;
        names = Py_BuildValue("(s)", "context");
        if (names == NULL) {
            return -1;
        }
    }
    PyObject *handle = PyObject_VectorcallMethod(stream_name(self, NAME_CALL_SOON), args, count, names);
    Py_XDECREF(names);
    int status = handle != NULL ? 0 : -1;
    if (handle != NULL && handle != Py_None && call->context != NULL && !self->context_given) {
        status = PyObject_SetAttr(handle, stream_name(self, NAME_CONTEXT), call->context);
    }
    Py_XDECREF(handle);
    return status;
}

/* loop.call_soon(callback, first, second), in the context of the connection or a copy of the current one. */
static int
schedule(Stream *self, PyObject *callback, PyObject *first, PyObject *second, bool own_context)
{
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_loop");
        return -1;
    }
    bool own = own_context || self->context_given;
    PyObject *context = own ? context_beside(self) : NULL;
    if (own && context == NULL) {
        return -1;
    }
    PyObject *const args[] = {first, second};
    PyObject *loop = Py_NewRef(self->loop);
    const Call call = {.loop = loop,
                       .callback = callback,
                       .args = args,
                       .count = (first != NULL) + (second != NULL),
                       .context = context};
    int status = schedule_directly(self->module->aio, &call);
    if (status == 0) {
        status = schedule_by_method(self, &call);
    }
    Py_DECREF(loop);
    Py_XDECREF(context);
    return status < 0 ? -1 : 0;
}

int
stream_call_soon(Stream *self, PyObject *callback, PyObject *first, PyObject *second)
{
    return schedule(self, callback, first, second, false);
}

int
stream_call_soon_self(Stream *self, int method, PyObject *argument)
{
    PyObject *callback = PyObject_GetAttr((PyObject *)self, stream_name(self, method));
    int status = callback != NULL ? schedule(self, callback, argument, NULL, true) : -1;
    Py_XDECREF(callback);
    return status;
}

int
stream_is_debug(Stream *self)
{
    if (has_no_loop(self)) {
        return 0;
    }
    int known = schedule_is_debug(self->module->aio, self->loop);
    if (known >= 0) {
        return known;
    }
    PyObject *debug = PyObject_CallMethodNoArgs(self->loop, stream_name(self, NAME_GET_DEBUG));
    int result = debug != NULL ? PyObject_IsTrue(debug) : -1;
    Py_XDECREF(debug);
    return result;
}

/* In debug mode: raise RuntimeError in another thread than the loop's, as its call_soon() does. */
int
stream_check_thread(Stream *self)
{
    int debug = stream_is_debug(self);
    return debug <= 0
               ? debug
               : status_of(PyObject_CallMethodNoArgs(self->loop, stream_name(self, NAME_CHECK_THREAD)));
}

int
stream_log(Stream *self, const char *format)
{
    int debug = stream_is_debug(self);
    return debug <= 0
               ? debug
               : status_of(PyObject_CallMethod(stream_state(self)->logger, "debug", "sO", format, self));
}
