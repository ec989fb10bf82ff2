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

#endif
