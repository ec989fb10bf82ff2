/*
 * The steps of a change to the interest list. All with the ctl lock, except for changes in place: in_place.h.
 *
 *   change_install() or change_remove()   change our list first, so that every event is known here before
 *                                         the kernel can report it
 *   epoll_ctl()                           make the same change in the kernel's list
 *   change_complete() or change_undo()    complete the change, or take it back where the kernel refuses it
 *
 * While a change is under way, its slot has a time that the clock has yet to reach: whether an event that
 * fits no registration is stale is not settled until then. See core/repair/stale.h. A change in place without
 * the ctl lock keeps the generation, which is all that this is about: it is complete for the clock at once.
 */
#ifndef PYEPOLL_CHANGE_H
#define PYEPOLL_CHANGE_H

#include "core/instance.h"

/* Take the ctl lock, and wait until no change in place is under way. mutex_unlock() releases it. */
void change_lock(Instance *self);

/* A generation that no registration has had. */
uint32_t change_next_generation(Instance *self);

/* The kernel may still have an entry under `fd` that is not a registration of ours any more. */
void change_shadow(Instance *self, int fd);

/* The fd no longer refers to the registered file: remove the registration, a complete change. Ownership
 * passes to the caller. */
Registration change_forget(Instance *self, int fd);

/* The kernel refused: put `before` back. Ownership of the refused registration passes to the caller. */
Registration change_undo(Instance *self, int fd, Registration before);

/* The time of a change that begins now: the clock will have it once the change is complete. With the state
 * lock. */
static inline uint64_t
change_begin(Instance *self)
{
    self->clock.begun = self->clock.completed + 1;
    return self->clock.begun;
}

/* Put `now` into the slot of `fd`, which must exist. Ownership of the earlier registration passes
 * to the caller. */
static inline Registration
change_install(Instance *self, int fd, Registration now)
{
    STATE_LOCK(self);
    const Registration *slot = interest_slot(&self->list, fd);
    now.changed = change_begin(self);
    /* Where something is registered already and the kernel accepts, its file was closed, or is ours too. */
    now.shadowed |= slot->shadowed || slot->generation != 0;
    Registration before = interest_put(&self->list, fd, now);
    STATE_UNLOCK(self);
    return before;
}

/* Empty the slot of `fd`, if there is one. Ownership of the earlier registration passes to the caller. */
static inline Registration
change_remove(Instance *self, int fd)
{
    Registration before = {0};
    STATE_LOCK(self);
    uint64_t time = change_begin(self);
    const Registration *slot = interest_slot(&self->list, fd);
    if (slot != NULL) {
        Registration empty = {.changed = time, .shadowed = slot->shadowed};
        before = interest_put(&self->list, fd, empty);
    }
    STATE_UNLOCK(self);
    return before;
}

/* epoll_ctl without the GIL. 0 or an errno. */
int change_kernel(const Instance *self, int op, int fd, uint32_t mask, uint64_t epoll_data);

/* Needs no GIL. */
static inline void
change_complete(Instance *self)
{
    atomic_store_explicit(&self->clock.completed, self->clock.completed + 1, memory_order_release);
}

/* Whether a change of this slot is under way. With the state lock. */
static inline bool
change_is_under_way(const Instance *self, const Registration *slot)
{
    return slot->changed > self->clock.completed;
}

#endif
