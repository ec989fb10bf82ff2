/* The type _LoopBase. */
#ifndef PYEPOLL_LOOP_TYPE_H
#define PYEPOLL_LOOP_TYPE_H

#include "aio/loop.h"

/* Make the types. 0, or -1 with an exception. */
int loop_init(PyObject *module, LoopState *state);

/* The module's function _learn_loop(). */
PyObject *loop_learn(PyObject *module, PyObject *args);

#endif
