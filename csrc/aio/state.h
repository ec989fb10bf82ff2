/* What the aio layer keeps in one interpreter, and what its files give each other. */
#ifndef PYEPOLL_AIO_STATE_H
#define PYEPOLL_AIO_STATE_H

#include "base/module_state.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Attributes that the C paths read, as slots at a fixed place in the object. */
enum { BUFFER, CONN_LOST, EMPTY_WAITER, EOF_WRITTEN, PROTOCOL, READ_READY_CB, SOCK, SOCK_FD, ATTRIBUTES };

/* The names of the methods that the C paths call, and of the queue that they append to. */
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

/* asyncio's functions: two for the cases that C leaves to them, and one for each kind of protocol, to
 * recognize it. */
enum { READ_READY, READ_TO_BUFFER, READ_TO_PROTOCOL, WRITE, INHERITED };

/* Attributes of a handle that the C paths read, as slots too. */
enum { HANDLE_ARGS, HANDLE_CALLBACK, HANDLE_CANCELLED, HANDLE_CONTEXT, HANDLE_ATTRIBUTES };

typedef struct AioState {
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
    Py_ssize_t closed_offset; /* of the attribute that says whether a socket is closed */
    _Atomic(char *) spare;    /* where data is received, when no thread has it */
} AioState;

extern PyType_Spec transport_spec;      /* transport.c */
extern PyMethodDef transport_methods[]; /* its C paths */
extern PyType_Spec group_spec;          /* handles.c */

/* The state of the module; it has been loaded. */
static inline AioState *
aio_state(PyObject *module)
{
    return ((const ModuleState *)PyModule_GetState(module))->aio;
}

/* The value of a slot of an object: borrowed, NULL if it is not set. */
static inline PyObject *
aio_slot(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* The read method of a transport; `self` must be one: transport.c. */
PyObject *transport_read_ready(PyObject *self, PyObject *ignored);

/* The handles that a loop has to run for the events of its selector, as a group; None where anything is
 * unusual: handles.c. */
PyObject *handles_group(PyObject *module, PyObject *args);

/* Read the layout of a class of transports, or of handles, and give the first its methods in C: layout.c. */
PyObject *layout_read_transport(PyObject *module, PyObject *args);
PyObject *layout_read_handles(PyObject *module, PyObject *type);

/* The state of the module that defined a base of `type`. Borrowed; NULL with an exception where the garbage
 * collector has cleared the type. */
AioState *aio_state_of(PyTypeObject *type);

/* load.c: for module.c, which owns the state. */
extern PyMethodDef aio_functions[];
int aio_traverse(const ModuleState *owner, visitproc visit, void *arg);
void aio_clear(ModuleState *owner);
void aio_free(ModuleState *owner);

#endif
