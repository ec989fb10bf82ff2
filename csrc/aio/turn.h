/* The turns of a loop: wait, queue what is due, run what is queued. */
#ifndef PYEPOLL_TURN_H
#define PYEPOLL_TURN_H

#include "aio/loop.h"

/* Methods of a loop. */
PyObject *turn_run_once(EventLoop *self, PyObject *ignored);
PyObject *turn_run_forever(EventLoop *self, PyObject *ignored);

#endif
