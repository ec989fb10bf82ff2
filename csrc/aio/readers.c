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

PyObject *
readers_private_add(const AioState *state, int direction, PyObject *loop, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *kwnames)
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

PyObject *
readers_private_remove(const AioState *state, int direction, PyObject *loop, PyObject *fileobj)
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
