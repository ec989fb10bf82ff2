/* Ready events as Python objects: the iterator that hands them out lazily, and the list. */
#ifndef PYEPOLL_READY_H
#define PYEPOLL_READY_H

#include "core/wait.h"

extern PyType_Spec ready_spec;

/* An iterator over the batches of `self`, one after another without end. */
PyObject *ready_endless(Instance *self);

/* Wait; then an iterator over the batch. NULL with an exception; NULL without one if `self` is closed. */
PyObject *ready_batch(Instance *self, const WaitRequest *wait);

/* The same as a list. */
PyObject *ready_list(Instance *self, const WaitRequest *wait);

/* Without an object for the whole, for C code: hand out the next event of a batch that wait_batch() has
 * filled. 1 and a new reference; 0 when it is used up; -1 with an exception: the event is the next again. */
int ready_take(Instance *self, Batch *batch, PyObject **pair);

/* The end of such a batch: what was not handed out is reported again. An exception may be set. */
void ready_drop(Instance *self, Batch *batch);

#endif
