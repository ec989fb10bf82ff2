/*
 * Reading and writing of the pipe transports. The Python classes in pyepoll._pipes, which are derived from
 * asyncio's, keep their state in slots, and have the methods for everything else.
 */
#ifndef PYEPOLL_AIO_PIPE_H
#define PYEPOLL_AIO_PIPE_H

#include "aio/state.h"

#include <unistd.h>

#define LEARN_PIPES_DOC                                                                                      \
    "_learn_pipes($module, read, write, /)\n--\n\n"                                                          \
    "Give the transport classes of pyepoll._pipes their methods in C."

PyObject *pipe_learn(PyObject *module, PyObject *args);

/* The state that the transports of the interpreter share; NULL with an exception. */
static inline PipeState *
pipe_state(PyObject *self)
{
    AioState *state = aio_state_of(Py_TYPE(self));
    return state != NULL ? &state->pipe : NULL;
}

/* Makes system calls without the GIL where they may take long: those on the standard streams, whose open file
 * descriptions other processes share and may make blocking, and those that copy much. */
static inline PyThreadState *
pipe_release_gil(int fd, size_t size)
{
    return fd <= STDERR_FILENO || size > 64 * 1024 ? PyEval_SaveThread() : NULL;
}

static inline void
pipe_take_gil(PyThreadState *thread)
{
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
}

/* Methods: read.c, write.c. */
PyObject *pipe_read_ready(PyObject *self, PyObject *ignored);
PyObject *pipe_write(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Close the transport for the OSError of an errno, or for the exception that is set if that is 0. None, or NULL
 * with an exception. */
PyObject *pipe_failed(const PipeState *state, PyObject *self, int error);

#endif
