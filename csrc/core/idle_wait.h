/*
 * A wait that got only stale events, from stale registrations that cannot be removed now, must neither spin
 * nor delay a live event. It waits on a second epoll that watches the instance by edges (EPOLLET): an entry
 * that merely stays ready, as that of a stale registration does, wakes it once; a new event wakes it at once.
 */
#ifndef PYEPOLL_IDLE_WAIT_H
#define PYEPOLL_IDLE_WAIT_H

#include "core/batch.h"

/* The rounds of one call that brought only stale events. Starts as IDLE_WAIT_START; freed by
 * idle_wait_end(). */
typedef struct {
    int rounds;
    int watcher_fd;      /* an epoll that watches the instance by edges; -1: none */
    uint64_t rebuilt_at; /* of the instance that it watches */
} IdleWait;
#define IDLE_WAIT_START ((IdleWait){.watcher_fd = -1})

/* A batch had events, but nothing was handed out: whether to wait again. False where the time is up. Where
 * stale registrations report that cannot be removed now, this call itself waits until something else
 * happens. */
bool idle_wait_goes_on(Instance *self, const WaitRequest *wait, const Batch *batch, IdleWait *idle);
void idle_wait_end(IdleWait *idle);

#endif
