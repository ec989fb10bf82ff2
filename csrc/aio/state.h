/* What the aio layer keeps in one interpreter, and what its files give each other. */
#ifndef PYEPOLL_AIO_STATE_H
#define PYEPOLL_AIO_STATE_H

#include "aio/stream/stream_state.h"
#include "base/module_state.h"

#include <stdbool.h>

/* The names of the methods that the C paths call, and of the queue that they append to. */
enum { APPENDLEFT, CALLBACK_FAILED, CANCEL, READY, RUN, METHODS };

/* Attributes of a handle that the C paths read, as slots too. */
enum { HANDLE_ARGS, HANDLE_CALLBACK, HANDLE_CANCELLED, HANDLE_CONTEXT, HANDLE_ATTRIBUTES };

typedef struct AioState {
    PyTypeObject *group_type;
    PyTypeObject *handle_type;  /* asyncio.Handle */
    PyObject *handle_run;       /* its method that a batch need not call */
    PyObject *methods[METHODS]; /* their names */
    Py_ssize_t handle_offsets[HANDLE_ATTRIBUTES];
    StreamState stream; /* of stream/ */
} AioState;

extern PyType_Spec group_spec; /* handles.c */

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

/* The read method of a transport; `self` must be one: stream/read.c. */
PyObject *transport_read_ready(PyObject *self, PyObject *ignored);

/* The handles that a loop has to run for the events of its selector, as a group; None where anything is
 * unusual: handles.c. */
PyObject *handles_group(PyObject *module, PyObject *args);

/* Read the layout of a class of handles: layout.c. */
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
