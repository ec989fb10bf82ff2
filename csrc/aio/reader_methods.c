/* The methods of a loop that watch files: count the arguments, look for a transport, delegate. */
#include "aio/readers.h"

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
               ? readers_private_add(state, direction, loop, args, nargs, kwnames)
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
    PyObject *handle = plain ? readers_private_add(state, direction, loop, args, nargs, NULL)
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
    return plain ? readers_private_remove(state, direction, loop, fileobj)
                 : call_method(state, method, loop, &fileobj, 1);
}

static PyObject *
private_remove(int direction, PyObject *loop, PyObject *fileobj)
{
    const AioState *state = aio_state_of(Py_TYPE(loop));
    return state != NULL ? readers_private_remove(state, direction, loop, fileobj) : NULL;
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
