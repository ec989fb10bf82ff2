/* The part of asyncio's pipe transports that runs for each event and each write. */
#ifndef PYEPOLL_AIO_PIPE_STATE_H
#define PYEPOLL_AIO_PIPE_STATE_H

#include "base/compat.h"

#include <stdatomic.h>

/* The methods that C calls: the protocol's, and those of the classes in pyepoll._pipes. */
enum {
    PIPE_DATA_RECEIVED,
    PIPE_END,
    PIPE_FAILED,
    PIPE_KEEP,
    PIPE_READ_SLOWLY,
    PIPE_WRITE_SLOWLY,
    PIPE_NAMES
};

/* Slots of the transports. */
enum { READ_FD, READ_MAX_SIZE, READ_PROTOCOL, READ_SLOTS };
enum { WRITE_BUFFER, WRITE_CLOSING, WRITE_CONN_LOST, WRITE_FD, WRITE_SLOTS };

/* The state that the pipe transports of an interpreter share. */
typedef struct {
    PyTypeObject *base_type;           /* _PipeBase */
    Py_ssize_t read_slots[READ_SLOTS]; /* their offsets, set by _learn_pipes() */
    Py_ssize_t write_slots[WRITE_SLOTS];
    PyObject *names[PIPE_NAMES];
    PyObject *zero;
    _Atomic(PyObject *) spare; /* a bytes object to read into, when no thread has it */
} PipeState;

/* load.c: make the type, of module. 0, or -1 with an exception. */
int pipe_init(PyObject *module, PipeState *state);
int pipe_traverse(const PipeState *state, visitproc visit, void *arg);

/* Drop the types: only these make a cycle. */
void pipe_clear(PipeState *state);
void pipe_free(PipeState *state);

#endif
