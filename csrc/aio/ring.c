#include "aio/ring.h"

int
ring_grow(Ring *ring)
{
    size_t capacity = ring->capacity > 0 ? 2 * ring->capacity : 64;
    PyObject **items = PyMem_New(PyObject *, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < ring->count; i++) {
        items[i] = ring_get(ring, i);
    }
    PyMem_Free(ring->items);
    ring->items = items;
    ring->capacity = capacity;
    ring->head = 0;
    return 0;
}

void
ring_clear(Ring *ring)
{
    Ring old = *ring;
    *ring = (Ring){0};
    while (old.count > 0) {
        Py_DECREF(ring_popleft(&old));
    }
    PyMem_Free(old.items);
}
