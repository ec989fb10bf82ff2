/* From one ready event to the pair that is handed out for it, where the pair of the last time will not do. */
#ifndef PYEPOLL_DELIVER_H
#define PYEPOLL_DELIVER_H

#include "core/instance.h"

/* The pair for an event of the wait that took `snapshot`. A new reference; NULL without an exception where
 * nothing is handed out, because the event is stale or the instance closed. */
PyObject *deliver(Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data, uint32_t events);

#endif
