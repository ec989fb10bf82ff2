/*
 * Reading and writing of the pipe transports. The Python classes in pyepoll._pipes, which are derived from
 * asyncio's, keep their state in slots, and have the methods for everything else.
 */
#ifndef PYEPOLL_AIO_PIPE_H
#define PYEPOLL_AIO_PIPE_H

#include "aio/result.h"
#include "aio/state.h"

#include <limits.h>

#define LEARN_PIPES_DOC                                                                                      \
    "_learn_pipes($module, read, write, /)\n--\n\n"                                                          \
    "Give the transport classes of pyepoll._pipes their methods in C."

PyObject *pipe_learn(PyObject *module, PyObject *args);

/* Whether a program has replaced os.read or os.write: then asyncio's methods call its version. */
static inline bool
pipe_call_is_replaced(const AioState *state, int global)
{
    const LoopGlobal *function = &state->loop.globals[global];
    bool cleared = function->dict == NULL || function->value == NULL; /* at exit */
    return cleared || !PyCFunction_CheckExact(function->value) || loop_global(function) != function->value;
}

/* The fd in a slot, borrowed or NULL; -1, without an exception, where it is none. */
static inline int
pipe_fd(PyObject *number)
{
    int overflow;
    bool usual = number != NULL && PyLong_CheckExact(number);
    long fd = usual ? PyLong_AsLongAndOverflow(number, &overflow) : -1;
    return fd >= 0 && fd <= INT_MAX ? (int)fd : -1;
}

/* Methods: read.c, write.c. */
PyObject *pipe_read_ready(PyObject *self, PyObject *ignored);
PyObject *pipe_write(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Close the transport for the OSError of an errno, or, if that is 0, for the exception that is set. None, or
 * NULL with an exception. */
PyObject *pipe_failed(const PipeState *state, PyObject *self, int error);

#endif
