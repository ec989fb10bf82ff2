/* What one interpreter's copy of pyepoll._aio holds. */
#ifndef PYEPOLL_AIO_MODULE_H
#define PYEPOLL_AIO_MODULE_H

#include "base/compat.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Attributes that the C paths read, as slots at a fixed place in the object. */
enum { BUFFER, CONN_LOST, EMPTY_WAITER, EOF_WRITTEN, PROTOCOL, READ_READY_CB, SOCK, SOCK_FD, ATTRIBUTES };

/* What the C paths call, and the queue that they put something in. */
enum {
    APPENDLEFT,
    BUFFER_UPDATED,
    CALLBACK_FAILED,
    CANCEL,
    DATA_RECEIVED,
    FAILED,
    GET_BUFFER,
    ON_EOF,
    READY,
    RUN,
    METHODS
};

/* asyncio's functions: two for all that C does not do, and one by which each kind of protocol is known. */
enum { READ_READY, READ_TO_BUFFER, READ_TO_PROTOCOL, WRITE, INHERITED };

/* Attributes of a handle that are read, likewise. */
enum { HANDLE_ARGS, HANDLE_CALLBACK, HANDLE_CANCELLED, HANDLE_CONTEXT, HANDLE_ATTRIBUTES };

typedef struct {
    PyTypeObject *transport_type; /* the base that leads from a transport to this module */
    PyTypeObject *socket_type;    /* socket.socket; NULL if that is not CPython's own */
    PyObject *inherited[INHERITED];
    PyTypeObject *group_type;
    PyTypeObject *handle_type; /* asyncio.Handle */
    PyObject *handle_run;      /* its method that a batch need not call */
    PyObject *minus_one;
    PyObject *methods[METHODS]; /* their names */
    Py_ssize_t offsets[ATTRIBUTES];
    Py_ssize_t handle_offsets[HANDLE_ATTRIBUTES];
    Py_ssize_t closed_offset; /* of a socket's own word whether it is closed */
    _Atomic(char *) spare;    /* where data is received, when no thread has it */
} AioState;

extern PyType_Spec transport_spec;      /* transport.c */
extern PyMethodDef transport_methods[]; /* its C paths */
extern PyType_Spec group_spec;          /* handles.c */

/* What is in a slot of an object: borrowed, NULL if it is not set. */
static inline PyObject *
aio_slot(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* The reading of a transport, for who knows that it is one: transport.c. */
PyObject *transport_read_ready(PyObject *self, PyObject *ignored);

/* The handles that a loop is to run for what its selector reports, as a batch; None where it is not the plain
 * case: handles.c. */
PyObject *handles_group(PyObject *module, PyObject *args);

/* Learn how a class of transports, or of handles, is laid out, and give the first the C paths: layout.c. */
PyObject *layout_read_transport(PyObject *module, PyObject *args);
PyObject *layout_read_handles(PyObject *module, PyObject *type);

/* The state of the module of which `type` has a base. Borrowed. */
AioState *aio_state_of(PyTypeObject *type);

#endif
