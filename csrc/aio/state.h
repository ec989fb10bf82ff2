/* The state of the aio layer in one interpreter, and the functions of its files. */
#ifndef PYEPOLL_AIO_STATE_H
#define PYEPOLL_AIO_STATE_H

#include "aio/datagram/state.h"
#include "aio/fds_state.h"
#include "aio/loop_state.h"
#include "aio/pipe/state.h"
#include "aio/stream/stream_state.h"
#include "base/module_state.h"

#include <stdbool.h>

typedef struct AioState {
    ModuleState *owner;
    LoopState loop;
    StreamState stream; /* of stream/ */
    FdsState fds;
    DatagramState datagram;
    PipeState pipe;
} AioState;

/* The state of the module; it has been loaded. */
static inline AioState *
aio_state(PyObject *module)
{
    return ((const ModuleState *)PyModule_GetState(module))->aio;
}

static inline AioState *
aio_of(const ModuleState *module)
{
    return module->aio;
}

/* The value of a slot of an object: borrowed, NULL if it is not set. */
static inline PyObject *
aio_slot(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* The state of the module that defined a base of `type`. Borrowed; NULL with an exception where the garbage
 * collector has cleared the type. */
AioState *aio_state_of(PyTypeObject *type);

/* load.c: for module.c, which owns the state. */
extern PyMethodDef aio_functions[];
int aio_traverse(const ModuleState *owner, visitproc visit, void *arg);
void aio_clear(ModuleState *owner);
void aio_free(ModuleState *owner);

#endif
