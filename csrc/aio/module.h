/* What one interpreter's copy of pyepoll._aio holds. */
#ifndef PYEPOLL_AIO_MODULE_H
#define PYEPOLL_AIO_MODULE_H

#include "../compat.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Attributes that the C paths read, as slots at a fixed place in the object. */
enum { BUFFER, CONN_LOST, EMPTY_WAITER, EOF_WRITTEN, PROTOCOL, READ_READY_CB, SOCK, SOCK_FD, ATTRIBUTES };

/* What the C paths call. */
enum { BUFFER_UPDATED, DATA_RECEIVED, FAILED, GET_BUFFER, ON_EOF, METHODS };

typedef struct {
    PyTypeObject *transport_type; /* the base that leads from a transport to this module */
    PyTypeObject *socket_type;    /* socket.socket; NULL if that is not CPython's own */
    PyObject *inherited_write;    /* asyncio's functions, for all that C does not do */
    PyObject *inherited_read_ready;
    PyObject *read_to_protocol; /* asyncio's, one for each kind of protocol: they tell which it is */
    PyObject *read_to_buffer;
    PyObject *cancelled; /* the name of a handle's attribute */
    PyObject *minus_one;
    PyObject *methods[METHODS]; /* their names */
    Py_ssize_t offsets[ATTRIBUTES];
    Py_ssize_t closed_offset; /* of a socket's own word whether it is closed */
    _Atomic(char *) spare;    /* where data is received, when no thread has it */
} AioState;

extern PyType_Spec transport_spec; /* transport.c */

/* Give a class of transports the C paths: transport.c. */
PyObject *transport_equip(PyObject *module, PyObject *args);

/* The handles that wait for what a selector reports, as a list; None where it is not the plain case that none
 * is cancelled: handles.c. */
PyObject *handles_of(PyObject *module, PyObject *events);

/* The state of the module of which `type` has a base. Borrowed. */
AioState *aio_state_of(PyTypeObject *type);

#endif
