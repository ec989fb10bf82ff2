/* One blocking wait: fill a batch, run the handlers of signals, and go on to the deadline where only stale
 * events came. */
#ifndef PYEPOLL_WAIT_H
#define PYEPOLL_WAIT_H

#include "core/batch.h"

/* Wait until the kernel has an event, or to the deadline; `batch` must be used up. 0, and the batch may be
 * empty, also where `fetched` is not 0: all were stale; IS_CLOSED; or -1 with an exception. */
int wait_fetch(Instance *self, const WaitRequest *wait, Batch *batch);

/* wait_fetch() until there is an event that can be handed out. */
int wait_batch(Instance *self, const WaitRequest *wait, Batch *batch);

#endif
