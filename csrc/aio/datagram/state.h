/* The part of asyncio's datagram transport that runs for each datagram. */
#ifndef PYEPOLL_AIO_DATAGRAM_STATE_H
#define PYEPOLL_AIO_DATAGRAM_STATE_H

#include "base/compat.h"

#include <stdatomic.h>

/* The methods that C calls: the protocol's first, then those of pyepoll._datagram.DatagramTransport. */
enum { DATAGRAM_RECEIVED, ERROR_RECEIVED, DATAGRAM_FAILED, KEEP, READ_SLOWLY, SEND_SLOWLY, DATAGRAM_METHODS };

/* The state that the datagram transports of an interpreter share. */
typedef struct {
    PyTypeObject *type;        /* the base of DatagramTransport */
    PyTypeObject *socket_type; /* socket.socket; NULL if that is not CPython's own */
    Py_ssize_t closed_offset;  /* of the attribute that says whether a socket is closed */
    PyObject *names[DATAGRAM_METHODS];
    _Atomic(char *) spare; /* where a datagram is received, when no thread has it */
} DatagramState;

/* init.c: make the type, of module. 0, or -1 with an exception. */
int datagram_init(PyObject *module, DatagramState *state);
int datagram_traverse(const DatagramState *state, visitproc visit, void *arg);

/* Drop the type: only that makes a cycle. */
void datagram_clear(DatagramState *state);
void datagram_free(DatagramState *state);

#endif
