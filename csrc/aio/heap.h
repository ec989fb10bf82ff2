/* `_scheduled` of a loop: a list of timers, a heap in the order of heapq, which asyncio's own code may use as
 * well. Our timers know where they are in it, so that a cancelled one is removed at once. */
#ifndef PYEPOLL_HEAP_H
#define PYEPOLL_HEAP_H

#include "aio/handle.h"

/* On an exact list, which a timer's `__lt__` may drop from the loop meanwhile: each holds it. */

/* As heapq.heappush(). 0, or -1 with an exception. */
int heap_push(const LoopState *state, PyObject *list, PyObject *timer);

/* When the first timer is due. False, without an exception, where there is none or its time is no float. */
bool heap_first(const LoopState *state, PyObject *list, double *when);

/* As heapq.heappop(), if the first timer is due before `end`. 1 and a new reference, to a known timer; 0
 * where none is due; -1 with an exception. */
int heap_pop_due(const LoopState *state, PyObject *list, double end, PyObject **timer);

/* Remove one of our timers. 1; 0 where it is not at the place that it knows; -1 with the exception of a
 * comparison: it is removed, but others may be out of order, as after an error in heapq. */
int heap_remove(const LoopState *state, PyObject *list, PyObject *timer);

#endif
