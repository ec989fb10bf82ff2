/* ReadyQueue: the handles that are ready to run, in order; `_ready` of a loop. A ring buffer with the methods
 * of collections.deque that asyncio uses, so asyncio's own code works on it as well. */
#ifndef PYEPOLL_RING_H
#define PYEPOLL_RING_H

#include "aio/counters.h"
#include "base/mutex.h"

#include <stdbool.h>
#include <stddef.h>

extern PyType_Spec ring_spec;

/* An array that is used as a ring; `capacity` is 0 or a power of two. */
typedef struct {
    PyObject **items;
    size_t capacity;
    size_t head;
    size_t count;
} Ring;

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

/* Make room and append; takes over no reference. 0, or -1 with MemoryError. */
int ring_grow(Ring *ring);

static inline int
ring_append(Ring *ring, PyObject *object)
{
    if (ring->count == ring->capacity && ring_grow(ring) < 0) {
        return -1;
    }
    ring->items[(ring->head + ring->count++) & (ring->capacity - 1)] = Py_NewRef(object);
    return 0;
}

/* Take the first out: a new reference. The ring is not empty. */
static inline PyObject *
ring_popleft(Ring *ring)
{
    PyObject *object = ring->items[ring->head];
    ring->head = (ring->head + 1) & (ring->capacity - 1);
    ring->count--;
    return object;
}

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
