/* The calls of a transport to its loop, in one place: these become direct calls where the loop is ours. */
#include "aio/stream/stream.h"

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

/* The loop makes the handle with a copy of the current context. It gets the connection's, which may be
 * another: a task that calls resume_reading() must not give its own to all later reads. */
int
stream_watch(Stream *self, bool writing)
{
    if (has_no_loop(self)) {
        return 0;
    }
    PyObject *method = PyObject_GetAttr((PyObject *)self,
                                        stream_name(self, writing ? NAME_WRITE_READY : NAME_READ_READY));
    PyObject *fd = watched_file(self);
    PyObject *args[] = {self->loop, fd, method};
    PyObject *handle = method != NULL && fd != NULL
                           ? PyObject_VectorcallMethod(
                                 stream_name(self, writing ? NAME_ADD_WRITER : NAME_ADD_READER), args, 3,
                                 NULL)
                           : NULL;
    Py_XDECREF(method);
    Py_XDECREF(fd);
    int status = handle != NULL ? 0 : -1;
    if (handle != NULL && writing) {
        self->writing = 1;
    }
    if (handle != NULL && handle != Py_None) {
        status = PyObject_SetAttr(handle, stream_name(self, NAME_CONTEXT), self->context);
    }
    Py_XDECREF(handle);
    return status;
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
    PyObject *fd = watched_file(self);
    PyObject *args[] = {self->loop, fd};
    PyObject *result = fd != NULL ? PyObject_VectorcallMethod(
                                        stream_name(self, writing ? NAME_REMOVE_WRITER : NAME_REMOVE_READER),
                                        args, 2, NULL)
                                  : NULL;
    Py_XDECREF(fd);
    return status_of(result);
}

/* loop.call_soon(callback, first, second). The handle, a new reference; NULL with an exception. */
static PyObject *
schedule(Stream *self, PyObject *callback, PyObject *first, PyObject *second)
{
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_loop");
        return NULL;
    }
    PyObject *args[5] = {self->loop, callback, first, second};
    size_t count = first == NULL ? 2 : second == NULL ? 3 : 4;
    PyObject *names = NULL;
    if (self->context_given) {
        args[count] = self->context;
        names = Py_BuildValue("(s)", "context");
        if (names == NULL) {
            return NULL;
        }
    }
    PyObject *handle = PyObject_VectorcallMethod(stream_name(self, NAME_CALL_SOON), args, count, names);
    Py_XDECREF(names);
    return handle;
}

int
stream_call_soon(Stream *self, PyObject *callback, PyObject *first, PyObject *second)
{
    return status_of(schedule(self, callback, first, second));
}

int
stream_call_soon_self(Stream *self, int method, PyObject *argument)
{
    PyObject *callback = PyObject_GetAttr((PyObject *)self, stream_name(self, method));
    PyObject *handle = callback != NULL ? schedule(self, callback, argument, NULL) : NULL;
    int status = handle != NULL ? 0 : -1;
    if (handle != NULL && handle != Py_None && !self->context_given) {
        status = PyObject_SetAttr(handle, stream_name(self, NAME_CONTEXT), self->context);
    }
    Py_XDECREF(handle);
    Py_XDECREF(callback);
    return status;
}

int
stream_is_debug(Stream *self)
{
    if (has_no_loop(self)) {
        return 0;
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
