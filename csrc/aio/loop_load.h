/* The loop's part of the layer's state: made when pyepoll.aio is imported. */
#ifndef PYEPOLL_LOOP_LOAD_H
#define PYEPOLL_LOOP_LOAD_H

#include "aio/state.h"

/* 0, or -1 with an exception. */
int loop_state_init(PyObject *module, LoopState *state);
int loop_state_traverse(const LoopState *state, visitproc visit, void *arg);

/* Clear what can make a cycle; the loops that are left go on in asyncio's code. */
void loop_state_clear(LoopState *state);
void loop_state_free(LoopState *state);

#endif
