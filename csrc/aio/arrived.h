/* Handles of events that are known without the selector: connections that connect() has made at once. They
 * are queued in the next turn after its events, as the handle of a writer would be; before them, if the turn
 * is asyncio's own, which looks for events itself. */
#ifndef PYEPOLL_ARRIVED_H
#define PYEPOLL_ARRIVED_H

#include "aio/handle.h"
#include "aio/loop.h"

/* Make a handle for the next turn. 0, or -1 with an exception. */
int arrived_add(EventLoop *self, const Call *call);

/* Queue them: the handles go to `queue`; NULL: to whatever the loop has in its place. 0, or -1 with an
 * exception. */
int arrived_queue(EventLoop *self, ReadyQueue *queue);

/* Whether there are any, so that the turn does not wait. */
static inline bool
arrived_any(const EventLoop *self)
{
    return loop_member(&self->arrived) != NULL;
}

#endif
