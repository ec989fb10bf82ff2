/* An array of references that is used as a ring. */
#ifndef PYEPOLL_RING_H
#define PYEPOLL_RING_H

#include <Python.h>

#include <stddef.h>

/* `capacity` is 0 or a power of two. */
typedef struct {
    PyObject **items;
    size_t capacity;
    size_t head;
    size_t count;
} Ring;

/* The reference at an index: borrowed. */
static inline PyObject *
ring_get(const Ring *ring, size_t index)
{
    return ring->items[(ring->head + index) & (ring->capacity - 1)];
}

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

/* Drop the references: other code may run, and use the ring meanwhile. */
void ring_clear(Ring *ring);

#endif
