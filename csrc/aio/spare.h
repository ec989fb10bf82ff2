/* Dead handles that are used again: they are made and destroyed more often than anything else.
 *
 * With a GIL an interpreter has one list of each kind. On a free-threaded build each loop has its own, which
 * only the thread that runs the loop touches: it needs no lock. */
#ifndef PYEPOLL_SPARE_H
#define PYEPOLL_SPARE_H

#include "aio/loop.h"

#ifdef Py_GIL_DISABLED
/* The dead handles of the loop that this thread runs; NULL if it runs none, or `type` is not that loop's. */
SpareHandles *spare_of_thread(const PyTypeObject *type, int kind);

/* Note the loop that this thread runs from now on; NULL for none. */
void spare_set_running(EventLoop *loop);
#else
static inline void
spare_set_running(EventLoop *Py_UNUSED(loop))
{
}
#endif

/* Take one: a new object whose members are not set, or NULL where there is none. */
PyObject *spare_take(SpareHandles *spare, PyTypeObject *type);

/* Keep the memory of a dead handle, with its reference to the type. False where there are enough. */
bool spare_keep(SpareHandles *spare, PyObject *handle);

/* Visit what those of all kinds refer to: their types. */
int spare_traverse(const SpareHandles *kinds, visitproc visit, void *arg);

/* Free those of all kinds. */
void spare_free(SpareHandles *kinds);

#endif
