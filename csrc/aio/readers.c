#include "aio/readers.h"

#include "aio/fdchange.h"

/* The loop's selector, if it is ours: a new reference. NULL; an exception is set only where the loop has
 * none. */
static LoopSelector *
selector_of(const AioState *state, PyObject *loop)
{
    PyObject *selector = PyObject_GetAttr(loop, state->fds.names[FDS_SELECTOR]);
    if (selector != NULL && !is_loop_selector(state, selector)) {
        Py_CLEAR(selector);
    }
    return (LoopSelector *)selector;
}

/* Cancel the handles that are not watched any more. 0, or -1 with an exception. */
static int
cancel_dropped(const AioState *state, FdUpdate *update)
{
    int status = 0;
    PyObject *error = PyErr_GetRaisedException();
    for (int i = 0; i < DIRECTIONS; i++) {
        PyObject *handle = update->dropped[i];
        if (handle != NULL) {
            PyObject *result = PyObject_CallMethodNoArgs(handle, state->fds.names[FDS_CANCEL]);
            status = result == NULL ? -1 : status;
            Py_XDECREF(result);
            Py_CLEAR(update->dropped[i]);
        }
    }
    if (error != NULL) {
        PyErr_SetRaisedException(error);
    }
    return status;
}

int
readers_add(LoopSelector *selector, int direction, PyObject *fileobj, PyObject *handle)
{
    FdUpdate update = {.fd = fds_fd_of(selector, fileobj),
                       .fileobj = fileobj,
                       .events = (uint8_t)(1 << direction),
                       .handle = handle};
    if (update.fd < 0) {
        return -1;
    }
    int status = fdchange_watch(selector, &update);
    return cancel_dropped(aio_of(selector->module), &update) < 0 ? -1 : status;
}

int
readers_remove(LoopSelector *selector, int direction, PyObject *fileobj)
{
    FdUpdate update = {
        .fd = fds_fd_of(selector, fileobj), .fileobj = fileobj, .events = (uint8_t)(1 << direction)};
    if (update.fd < 0) {
        return -1;
    }
    int status = fdchange_unwatch(selector, &update);
    bool had = update.dropped[direction] != NULL;
    return cancel_dropped(aio_of(selector->module), &update) < 0 || status < 0 ? -1 : had;
}

/* 0; or -1 with the exception of _check_closed(). */
static int
check_closed(const AioState *state, PyObject *loop)
{
    PyObject *closed = PyObject_GetAttr(loop, state->fds.names[FDS_CLOSED]);
    PyObject *result = closed == Py_False
                           ? Py_NewRef(Py_None)
                           : PyObject_CallMethodNoArgs(loop, state->fds.names[FDS_CHECK_CLOSED]);
    if (closed == NULL && result != NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(closed);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* asyncio.events.Handle(callback, args, loop, context). */
static PyObject *
make_handle(const AioState *state, PyObject *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t count, PyObject *context)
{
    PyObject *type = PyObject_GetAttr(state->fds.events, state->fds.names[FDS_HANDLE]);
    PyObject *tuple = type != NULL ? PyTuple_New(count) : NULL;
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    PyObject *given[] = {callback, tuple, loop, context != NULL ? context : Py_None};
    PyObject *handle = tuple != NULL ? PyObject_Vectorcall(type, given, 4, NULL) : NULL;
    Py_XDECREF(tuple);
    Py_XDECREF(type);
    return handle;
}

/* asyncio's own method, for a loop with another selector. */
static PyObject *
call_stock(const AioState *state, int method, PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    Py_ssize_t count = nargs + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    PyObject **given = PyMem_Malloc((size_t)(count + 1) * sizeof(*given));
    if (given == NULL) {
        return PyErr_NoMemory();
    }
    given[0] = loop;
    for (Py_ssize_t i = 0; i < count; i++) {
        given[i + 1] = args[i];
    }
    PyObject *result = PyObject_Vectorcall(state->fds.stock[method], given, (size_t)nargs + 1, kwnames);
    PyMem_Free(given);
    return result;
}

/* The keyword context, which asyncio's methods have from CPython 3.15 on. 0, or -1 with an exception. */
static int
context_of(PyObject *const *values, PyObject *kwnames, PyObject **context)
{
    *context = NULL;
    if (kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0) {
        return 0;
    }
    if (PyTuple_GET_SIZE(kwnames) == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "context") == 0) {
        *context = values[0];
        return 0;
    }
    PyErr_SetString(PyExc_TypeError, "the only keyword is context");
    return -1;
}

/* _add_reader() or _add_writer(), whose arguments have been counted. The handle, a new reference. */
static PyObject *
add(const AioState *state, int direction, PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
    PyObject *kwnames)
{
    PyObject *context;
    LoopSelector *selector = selector_of(state, loop);
    if (selector == NULL) {
        return PyErr_Occurred() ? NULL : call_stock(state, direction, loop, args, nargs, kwnames);
    }
    PyObject *handle = check_closed(state, loop) == 0 && context_of(args + nargs, kwnames, &context) == 0
                           ? make_handle(state, loop, args[1], args + 2, nargs - 2, context)
                           : NULL;
    if (handle != NULL && readers_add(selector, direction, args[0], handle) < 0) {
        Py_CLEAR(handle);
    }
    Py_DECREF(selector);
    return handle;
}

/* _remove_reader() or _remove_writer(). */
static PyObject *
remove_(const AioState *state, int direction, PyObject *loop, PyObject *fileobj)
{
    PyObject *closed = PyObject_GetAttr(loop, state->fds.names[FDS_CLOSED]);
    LoopSelector *selector = closed != NULL ? selector_of(state, loop) : NULL;
    bool open = closed == Py_False;
    Py_XDECREF(closed);
    if (selector == NULL || !open) {
        Py_XDECREF(selector);
        return PyErr_Occurred() ? NULL
                                : call_stock(state, FDS_REMOVE_READER + direction, loop, &fileobj, 1, NULL);
    }
    int status = readers_remove(selector, direction, fileobj);
    Py_DECREF(selector);
    return status >= 0 ? PyBool_FromLong(status) : NULL;
}

/* Whether no transport uses the fd, as far as that can be seen without a call of Python code. */
static bool
has_no_transport(const AioState *state, PyObject *loop, PyObject *fileobj)
{
    bool none = false;
    PyObject *transports = PyObject_GetAttr(loop, state->fds.names[FDS_TRANSPORTS]);
    PyObject *data = transports != NULL && Py_IS_TYPE(transports, state->fds.weak_dict)
                         ? PyObject_GetAttr(transports, state->fds.names[FDS_DATA])
                         : NULL;
    if (data != NULL && PyDict_CheckExact(data)) {
        PyObject *fd = PyLong_CheckExact(fileobj) ? Py_NewRef(fileobj)
                       : Py_IS_TYPE(fileobj, state->fds.socket_type)
                           ? PyObject_CallMethodNoArgs(fileobj, state->fds.names[FDS_FILENO])
                           : NULL;
        none = fd != NULL && PyDict_Contains(data, fd) == 0;
        Py_XDECREF(fd);
    }
    Py_XDECREF(data);
    Py_XDECREF(transports);
    PyErr_Clear();
    return none;
}

/* Whether the loop is of the package's own class, and its dict has none of the two methods: then they are
 * ours. */
static bool
is_plain(const AioState *state, PyObject *loop, int method)
{
    PyObject *dict = Py_IS_TYPE(loop, state->fds.loop_class) ? PyObject_GenericGetDict(loop, NULL) : NULL;
    bool plain = dict != NULL && PyDict_Contains(dict, state->fds.names[method]) == 0 &&
                 PyDict_Contains(dict, state->fds.names[FDS_ENSURE_NO_TRANSPORT]) == 0;
    Py_XDECREF(dict);
    PyErr_Clear();
    return plain;
}

/* loop._ensure_fd_no_transport(fileobj). 0, or -1 with an exception. */
static int
ensure_no_transport(const AioState *state, PyObject *loop, PyObject *fileobj)
{
    PyObject *result = PyObject_CallMethodOneArg(loop, state->fds.names[FDS_ENSURE_NO_TRANSPORT], fileobj);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* The loop's method with an underscore, whoever has replaced it. */
static PyObject *
call_method(const AioState *state, int method, PyObject *loop, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject **given = PyMem_Malloc((size_t)(nargs + 1) * sizeof(*given));
    if (given == NULL) {
        return PyErr_NoMemory();
    }
    given[0] = loop;
    memcpy(given + 1, args, (size_t)nargs * sizeof(*given));
    PyObject *result = PyObject_VectorcallMethod(state->fds.names[method], given, (size_t)nargs + 1, NULL);
    PyMem_Free(given);
    return result;
}

/* 0, or -1 with an exception: the call has fewer arguments than `least`. */
static int
check_count(const AioState *state, int method, Py_ssize_t nargs, Py_ssize_t least)
{
    if (nargs >= least) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%U() takes at least %zd arguments (%zd given)", state->fds.names[method],
                 least, nargs);
    return -1;
}

static PyObject *
private_add(int direction, PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    const AioState *state = aio_state_of(Py_TYPE(loop));
    return state != NULL && check_count(state, direction, nargs, 2) == 0
               ? add(state, direction, loop, args, nargs, kwnames)
               : NULL;
}

static PyObject *
public_add(int direction, PyObject *loop, PyObject *const *args, Py_ssize_t nargs)
{
    const AioState *state = aio_state_of(Py_TYPE(loop));
    if (state == NULL || check_count(state, FDS_PUBLIC + direction, nargs, 2) < 0) {
        return NULL;
    }
    bool plain = is_plain(state, loop, direction);
    if (!(plain && has_no_transport(state, loop, args[0])) && ensure_no_transport(state, loop, args[0]) < 0) {
        return NULL;
    }
    PyObject *handle = plain ? add(state, direction, loop, args, nargs, NULL)
                             : call_method(state, direction, loop, args, nargs);
    Py_XDECREF(handle);
    return handle != NULL ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
public_remove(int direction, PyObject *loop, PyObject *fileobj)
{
    const AioState *state = aio_state_of(Py_TYPE(loop));
    if (state == NULL) {
        return NULL;
    }
    int method = FDS_REMOVE_READER + direction;
    bool plain = is_plain(state, loop, method);
    if (!(plain && has_no_transport(state, loop, fileobj)) && ensure_no_transport(state, loop, fileobj) < 0) {
        return NULL;
    }
    return plain ? remove_(state, direction, loop, fileobj) : call_method(state, method, loop, &fileobj, 1);
}

static PyObject *
private_remove(int direction, PyObject *loop, PyObject *fileobj)
{
    const AioState *state = aio_state_of(Py_TYPE(loop));
    return state != NULL ? remove_(state, direction, loop, fileobj) : NULL;
}

static PyObject *
add_reader(PyObject *loop, PyObject *const *args, Py_ssize_t nargs)
{
    return public_add(READER, loop, args, nargs);
}

static PyObject *
add_writer(PyObject *loop, PyObject *const *args, Py_ssize_t nargs)
{
    return public_add(WRITER, loop, args, nargs);
}

static PyObject *
remove_reader(PyObject *loop, PyObject *fileobj)
{
    return public_remove(READER, loop, fileobj);
}

static PyObject *
remove_writer(PyObject *loop, PyObject *fileobj)
{
    return public_remove(WRITER, loop, fileobj);
}

static PyObject *
private_add_reader(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return private_add(READER, loop, args, nargs, kwnames);
}

static PyObject *
private_add_writer(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return private_add(WRITER, loop, args, nargs, kwnames);
}

static PyObject *
private_remove_reader(PyObject *loop, PyObject *fileobj)
{
    return private_remove(READER, loop, fileobj);
}

static PyObject *
private_remove_writer(PyObject *loop, PyObject *fileobj)
{
    return private_remove(WRITER, loop, fileobj);
}

PyDoc_STRVAR(add_reader_doc,
"add_reader($self, fd, callback, /, *args)\n--\n\n"
"Call callback(*args) whenever fd, or an object with fileno(), can be read, has ended or failed. It takes the\n"
"place of an earlier reader.\n\n"
"Raises RuntimeError if a transport uses the fd, and if the loop is closed; ValueError for an invalid file\n"
"object; OSError if the fd cannot be watched: EBADF, EPERM, ENOSPC.");

PyDoc_STRVAR(add_writer_doc,
"add_writer($self, fd, callback, /, *args)\n--\n\n"
"Call callback(*args) whenever fd, or an object with fileno(), can be written to or has failed. The rest is\n"
"as in add_reader().");

PyDoc_STRVAR(remove_reader_doc,
"remove_reader($self, fd, /)\n--\n\n"
"Cancel the reader of fd. Returns whether there was one.\n\n"
"Raises RuntimeError if a transport uses the fd; ValueError for an invalid file object.");

PyDoc_STRVAR(remove_writer_doc,
"remove_writer($self, fd, /)\n--\n\n"
"Cancel the writer of fd. The rest is as in remove_reader().");

PyDoc_STRVAR(private_doc,
"asyncio's method of this name: the public one, without the check for a transport.");

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL
#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

PyMethodDef readers_methods[] = {
    {"add_reader", FAST(add_reader), add_reader_doc},
    {"add_writer", FAST(add_writer), add_writer_doc},
    {"remove_reader", remove_reader, METH_O, remove_reader_doc},
    {"remove_writer", remove_writer, METH_O, remove_writer_doc},
    {"_add_reader", KEYWORDS(private_add_reader), private_doc},
    {"_add_writer", KEYWORDS(private_add_writer), private_doc},
    {"_remove_reader", private_remove_reader, METH_O, private_doc},
    {"_remove_writer", private_remove_writer, METH_O, private_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(loop_readers_doc,
"The part of a loop that watches files.");

static PyType_Slot loop_readers_slots[] = {
    {Py_tp_doc,     (void *)loop_readers_doc},
    {Py_tp_methods, readers_methods         },
    {0,             NULL                    },
};

PyType_Spec loop_readers_spec = {
    .name = "pyepoll._epoll.LoopReaders",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = loop_readers_slots,
};
