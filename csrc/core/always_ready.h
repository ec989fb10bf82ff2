/* The stand-ins of an Instance (core/stand_in.h), and what becomes of a change that the kernel refused
 * because the file cannot be polled. Its table is changed with the ctl lock and the state lock, so either is
 * enough to read it. */
#ifndef PYEPOLL_ALWAYS_READY_H
#define PYEPOLL_ALWAYS_READY_H

#include "core/instance.h"

/* After an epoll_ctl() for a change that is installed, in an instance that has stand-ins, or whose answer was
 * EPERM: do for the stand-in what the kernel did not do for the file. `error` is the kernel's errno, or 0.
 * The errno of the change, 0, or -1 for no memory. With the ctl lock and the GIL. */
int always_ready_settle(Instance *self, int op, int fd, uint32_t mask, uint32_t generation, int error);

/* Whether always_ready_settle() has to be called. With the ctl lock. */
static inline bool
always_ready_is_concerned(const Instance *self, int error)
{
    return self->stand_ins.count > 0 || (error == EPERM && self->always_ready);
}

/* The registration of `fd` has been removed: drop its stand-in, if there is one. With the ctl lock and the
 * GIL. */
void always_ready_drop(Instance *self, int fd);

/* The fd and the mask of the kernel's entry for a registration. With the ctl lock. */
int always_ready_target(const Instance *self, int fd, uint32_t *mask);

/* False if the event is of a stand-in whose fd no longer refers to the registered file. */
bool always_ready_is_current(Instance *self, uint64_t epoll_data);

/* Whether `fd` is the eventfd of a stand-in. With the ctl lock and the GIL. */
bool always_ready_owns_slowly(Instance *self, int fd);

static inline bool
always_ready_owns(Instance *self, int fd)
{
    return self->stand_ins.count > 0 && always_ready_owns_slowly(self, fd);
}

#endif
