/* Count the arguments, look for a transport, delegate. What another selector or a replaced method needs is
 * left to asyncio's own code. */
#include "aio/reader_methods.h"

#include "aio/override.h"
#include "aio/readers.h"
#include "aio/schedule.h"
#include "aio/sockets.h"
#include "aio/stream/stream.h"

/* _add_reader() or _add_writer(). The handle, a new reference. */
static PyObject *
add(int direction, EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Call call;
    LoopSelector *selector = (loop_overridden(self) & HOOK(CHECK_CLOSED)) == 0 ? readers_selector(self)
                                                                               : NULL;
    if (selector == NULL || !schedule_parse(self, args, nargs, names, 1, &call)) {
        Py_XDECREF(selector);
        return schedule_stock(self, ADD_READER + direction, args, nargs, names);
    }
    PyObject *handle = readers_handle(self, &call);
    if (handle != NULL && readers_add(selector, direction, args[0], handle) < 0) {
        Py_CLEAR(handle);
    }
    Py_DECREF(selector);
    return handle;
}

/* _remove_reader() or _remove_writer(). */
static PyObject *
remove_(int direction, EventLoop *self, PyObject *fileobj)
{
    LoopSelector *selector = readers_selector(self);
    if (selector == NULL) {
        return schedule_stock(self, REMOVE_READER + direction, &fileobj, 1, NULL);
    }
    int status = readers_remove(selector, direction, fileobj);
    Py_DECREF(selector);
    return status >= 0 ? PyBool_FromLong(status) : NULL;
}

/* The dict of `_transports`, which has the same one as long as it lives: a new reference, or NULL. */
static PyObject *
transport_fds(const AioState *state, EventLoop *self)
{
    PyObject *fds = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    PyObject *transports = self->transports;
    if (self->transport_fds == NULL && transports != NULL && Py_IS_TYPE(transports, state->fds.weak_dict)) {
        self->transport_fds = PyObject_GetAttr(transports, state->fds.names[FDS_DATA]);
    }
    fds = Py_XNewRef(self->transport_fds);
    Py_END_CRITICAL_SECTION();
    if (fds != NULL && !PyDict_CheckExact(fds)) {
        Py_CLEAR(fds);
    }
    return fds;
}

/* Whether a transport may use the fd: `data` has weak references. One of ours that is closing uses it no
 * more, and stays there as long as the program keeps it. */
static bool
may_have_transport(const AioState *state, PyObject *data, PyObject *fd)
{
    PyObject *reference = NULL, *transport = NULL;
    if (PyDict_GetItemRef(data, fd, &reference) == 0) {
        return false;
    }
    bool dead = reference != NULL && PyWeakref_Check(reference) &&
                PyWeakref_GetRef(reference, &transport) == 0;
    bool closing = transport != NULL && stream_is_closing(&state->stream, transport);
    Py_XDECREF(transport);
    Py_XDECREF(reference);
    return !dead && !closing;
}

/* Whether no transport uses the fd, as far as that can be seen without a call of Python code. */
static bool
has_no_transport(const AioState *state, EventLoop *self, PyObject *fileobj)
{
    bool none = false;
    PyObject *fds = transport_fds(state, self);
    if (fds != NULL) {
        PyObject *fd = PyLong_CheckExact(fileobj)                    ? Py_NewRef(fileobj)
                       : Py_IS_TYPE(fileobj, state->fds.socket_type) ? socket_fileno(state, fileobj)
                                                                     : NULL;
        none = fd != NULL && !may_have_transport(state, fds, fd);
        Py_XDECREF(fd);
        Py_DECREF(fds);
    }
    PyErr_Clear();
    return none;
}

int
readers_ensure_no_transport(EventLoop *self, PyObject *fileobj)
{
    const AioState *state = self->state;
    if ((loop_overridden(self) & HOOK(ENSURE_NO_TRANSPORT)) == 0 && has_no_transport(state, self, fileobj)) {
        return 0;
    }
    PyObject *result = PyObject_CallMethodOneArg((PyObject *)self,
                                                 state->loop.method_names[ENSURE_NO_TRANSPORT], fileobj);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

static PyObject *
ensure_method(EventLoop *self, PyObject *fileobj)
{
    return has_no_transport(self->state, self, fileobj)
               ? Py_NewRef(Py_None)
               : schedule_stock(self, ENSURE_NO_TRANSPORT, &fileobj, 1, NULL);
}

/* The method with an underscore, where it was replaced. */
static PyObject *
call_replaced(int method, EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *function = PyObject_GetAttr((PyObject *)self, self->state->loop.method_names[method]);
    PyObject *result = function != NULL ? PyObject_Vectorcall(function, args, (size_t)nargs, NULL) : NULL;
    Py_XDECREF(function);
    return result;
}

PyObject *
readers_add_checked(EventLoop *self, int direction, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError, "add_%s() takes at least 2 arguments (%zd given)",
                     direction == READER ? "reader" : "writer", nargs);
        return NULL;
    }
    if (readers_ensure_no_transport(self, args[0]) < 0) {
        return NULL;
    }
    int method = ADD_READER + direction;
    return (loop_overridden(self) & HOOK(method)) == 0 ? add(direction, self, args, nargs, NULL)
                                                       : call_replaced(method, self, args, nargs);
}

static PyObject *
public_add(int direction, EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *handle = readers_add_checked(self, direction, args, nargs);
    Py_XDECREF(handle);
    return handle != NULL ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
public_remove(int direction, EventLoop *self, PyObject *fileobj)
{
    if (readers_ensure_no_transport(self, fileobj) < 0) {
        return NULL;
    }
    int method = REMOVE_READER + direction;
    return (loop_overridden(self) & HOOK(method)) == 0 ? remove_(direction, self, fileobj)
                                                       : call_replaced(method, self, &fileobj, 1);
}

/* asyncio's own method, for arguments that are given by name, or wrong. */
static PyObject *
call_stock(EventLoop *self, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *function = PyObject_GetAttrString((PyObject *)self->state->loop.stock_loop, name);
    PyObject *bound = function != NULL ? PyMethod_New(function, (PyObject *)self) : NULL;
    PyObject *result = bound != NULL ? PyObject_Vectorcall(bound, args, (size_t)nargs, names) : NULL;
    Py_XDECREF(bound);
    Py_XDECREF(function);
    return result;
}

static PyObject *
add_reader(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return names == NULL ? public_add(READER, self, args, nargs)
                         : call_stock(self, "add_reader", args, nargs, names);
}

static PyObject *
add_writer(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return names == NULL ? public_add(WRITER, self, args, nargs)
                         : call_stock(self, "add_writer", args, nargs, names);
}

static PyObject *
remove_reader(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return names == NULL && nargs == 1 ? public_remove(READER, self, args[0])
                                       : call_stock(self, "remove_reader", args, nargs, names);
}

static PyObject *
remove_writer(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return names == NULL && nargs == 1 ? public_remove(WRITER, self, args[0])
                                       : call_stock(self, "remove_writer", args, nargs, names);
}

static PyObject *
checked_add_reader(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    return readers_add_checked(self, READER, args, nargs);
}

static PyObject *
checked_add_writer(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    return readers_add_checked(self, WRITER, args, nargs);
}

static PyObject *
private_add_reader(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return add(READER, self, args, nargs, names);
}

static PyObject *
private_add_writer(EventLoop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return add(WRITER, self, args, nargs, names);
}

static PyObject *
private_remove_reader(EventLoop *self, PyObject *fileobj)
{
    return remove_(READER, self, fileobj);
}

static PyObject *
private_remove_writer(EventLoop *self, PyObject *fileobj)
{
    return remove_(WRITER, self, fileobj);
}

PyDoc_STRVAR(add_reader_doc,
"add_reader($self, fd, callback, *args)\n--\n\n"
"Call callback(*args) whenever fd, or an object with fileno(), can be read, has ended or failed. It takes\n"
"the place of an earlier reader.\n\n"
"Raises RuntimeError if a transport uses the fd, and if the loop is closed; ValueError for an invalid file\n"
"object; OSError if the fd cannot be watched: EBADF, EPERM, ENOSPC.");

PyDoc_STRVAR(add_writer_doc,
"add_writer($self, fd, callback, *args)\n--\n\n"
"Call callback(*args) whenever fd, or an object with fileno(), can be written to or has failed. The rest is\n"
"as in add_reader().");

PyDoc_STRVAR(remove_reader_doc,
"remove_reader($self, fd)\n--\n\n"
"Cancel the reader of fd. Returns whether there was one.\n\n"
"Raises RuntimeError if a transport uses the fd; ValueError for an invalid file object.");

PyDoc_STRVAR(remove_writer_doc,
"remove_writer($self, fd)\n--\n\n"
"Cancel the writer of fd. The rest is as in remove_reader().");

PyDoc_STRVAR(checked_doc,
"add_reader() or add_writer(), which returns its handle.");

PyDoc_STRVAR(private_doc,
"asyncio's method of this name: the public one, without the check for a transport.");

PyDoc_STRVAR(ensure_doc,
"_ensure_fd_no_transport($self, fd, /)\n--\n\n"
"Raise RuntimeError if a transport uses the fd.");

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL
#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

PyMethodDef reader_methods[] = {
    {"add_reader", KEYWORDS(add_reader), add_reader_doc},
    {"add_writer", KEYWORDS(add_writer), add_writer_doc},
    {"remove_reader", KEYWORDS(remove_reader), remove_reader_doc},
    {"remove_writer", KEYWORDS(remove_writer), remove_writer_doc},
    {"_add_checked_reader", FAST(checked_add_reader), checked_doc},
    {"_add_checked_writer", FAST(checked_add_writer), checked_doc},
    {"_add_reader", KEYWORDS(private_add_reader), private_doc},
    {"_add_writer", KEYWORDS(private_add_writer), private_doc},
    {"_remove_reader", (PyCFunction)private_remove_reader, METH_O, private_doc},
    {"_remove_writer", (PyCFunction)private_remove_writer, METH_O, private_doc},
    {"_ensure_fd_no_transport", (PyCFunction)ensure_method, METH_O, ensure_doc},
    {NULL, NULL, 0, NULL},
};
