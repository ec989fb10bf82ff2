/*
 * Repairs, where instance_enter() returns NEEDS_REPAIR. Two things can be wrong with a kernel instance. It
 * has a stale registration that reports events and that no epoll_ctl can remove; or, in a child after fork(),
 * it is the parent's. The answer to both is another kernel instance, filled from our interest list:
 * rebuild.h.
 *
 * A repair is made by the thread that wants to use the instance. It holds no lock when the repair begins.
 */
#ifndef PYEPOLL_REPAIR_H
#define PYEPOLL_REPAIR_H

#include "core/instance.h"

/* The slow halves of the following two. */
int repair_and_enter(Instance *self);
int repair_and_enter_wait(Instance *self, WaitSnapshot *snapshot);

/* Become a user; a forked copy gets its own kernel instance first. 0, IS_CLOSED, or -1 with an exception: it
 * could not get one. */
static inline int
repair_enter(Instance *self)
{
    int status = instance_enter(self);
    return status != NEEDS_REPAIR ? status : repair_and_enter(self);
}

/* The same for a wait; a stale registration is removed first. Where that fails, it is tried again later. */
static inline int
repair_enter_wait(Instance *self, WaitSnapshot *snapshot)
{
    int status = instance_enter_wait(self, snapshot);
    return status != NEEDS_REPAIR ? status : repair_and_enter_wait(self, snapshot);
}

#endif
