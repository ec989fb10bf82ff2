/* ReadyQueue: the handles that are ready to run, in order; `_ready` of a loop. A ring buffer with the methods
 * of collections.deque that asyncio uses, so asyncio's own code works on it as well. */
#ifndef PYEPOLL_READY_QUEUE_H
#define PYEPOLL_READY_QUEUE_H

#include "aio/counters.h"
#include "aio/ring.h"
#include "base/mutex.h"

#include <stdbool.h>
#include <stddef.h>

extern PyType_Spec ready_queue_spec;

/* On a free-threaded build only the thread that runs the loop touches `ring` while the loop runs; the others
 * put handles into `inbox`, under the lock, from where that thread takes them. With a GIL, `ring` has all. */
typedef struct {
    PyObject_HEAD
    Ring ring;
    Counter popped; /* by code in Python; count_stock_turn() takes them */
#ifdef Py_GIL_DISABLED
    Mutex lock; /* of `inbox` */
    Ring inbox;
    atomic_size_t incoming; /* the length of `inbox` */
    atomic_ulong owner;     /* the thread that runs the loop, or 0 */
#endif
} ReadyQueue;

/* Append from any thread. 0, or -1 with MemoryError. */
int ready_put_shared(ReadyQueue *self, PyObject *object);

/* Append to the queue of a loop that this thread runs, or that no thread runs. 0, or -1 with MemoryError. */
static inline int
ready_put(ReadyQueue *self, PyObject *object)
{
#ifdef Py_GIL_DISABLED
    return ready_put_shared(self, object);
#else
    return ring_append(&self->ring, object);
#endif
}

/* Move the handles of other threads into the ring: only in the thread that runs the loop. 0, or -1 with
 * MemoryError: they stay where they are. */
#ifdef Py_GIL_DISABLED
int ready_collect(ReadyQueue *self);
#else
static inline int
ready_collect(ReadyQueue *Py_UNUSED(self))
{
    return 0;
}
#endif

#endif
