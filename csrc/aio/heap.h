/* `_scheduled` of a loop: a list of timers, a heap in the order of heapq, which asyncio's own code may use as
 * well. Our timers know where they are in it, so that a cancelled one is removed at once. */
#ifndef PYEPOLL_HEAP_H
#define PYEPOLL_HEAP_H

#include "aio/handle.h"

/* As heapq.heappush() and heapq.heappop(), on an exact list. 0, or -1 with an exception. */
int heap_push(const LoopState *state, PyObject *list, PyObject *timer);

/* A new reference; NULL with an exception. The list is not empty. */
PyObject *heap_pop(const LoopState *state, PyObject *list);

/* Remove one of our timers. 1; 0 where it is not at the place that it knows; -1 with an exception. */
int heap_remove(const LoopState *state, PyObject *list, PyObject *timer);

#endif
