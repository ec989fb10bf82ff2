/* Run a handle as Handle._run() does. */
#ifndef PYEPOLL_RUN_H
#define PYEPOLL_RUN_H

#include "aio/loop.h"

/* Run a handle. 1; 0 if it is cancelled; -1 with an exception that has to end the loop: KeyboardInterrupt
 * or SystemExit, or one of the exception handler's. */
int run_handle(AioState *state, PyObject *handle);

#endif
