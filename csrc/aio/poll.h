/* The wait of a turn, and the queueing of its events. */
#ifndef PYEPOLL_POLL_H
#define PYEPOLL_POLL_H

#include "aio/fdtable.h"
#include "aio/loop.h"

/* In place of a number of seconds: no limit. */
#define POLL_FOREVER (-1.0)

/* Wait in the loop's selector for `timeout` seconds and queue the handles of its events. 0, or -1 with an
 * exception. */
int poll_events(EventLoop *self, ReadyQueue *queue, double timeout);

/* The selector of the loop, if C may work on it: it is exactly LoopSelector, and its select() is its class's.
 * Borrowed, or NULL. */
LoopSelector *poll_selector(const EventLoop *self);

/* Whether there is nothing to poll for but a wake-up by another thread, which also shows in the queue. */
bool poll_is_idle(const EventLoop *self);

#endif
