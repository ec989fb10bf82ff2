/* The types of our handles. */
#ifndef PYEPOLL_HANDLE_TYPE_H
#define PYEPOLL_HANDLE_TYPE_H

#include "aio/loop_state.h"

/* Make them, if asyncio's have the layout of handle.h. 0, or -1 with an exception. */
int handle_type_init(PyObject *module, LoopState *state);

#endif
