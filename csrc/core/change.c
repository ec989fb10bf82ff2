#include "core/change.h"

#include "core/always_ready.h"

#include <errno.h>

/* Whether a change in place is under way. With the ctl lock, so none can begin after this. */
static bool
is_changed_in_place(Instance *self)
{
    STATE_LOCK(self);
    bool changing = self->users.changing != 0;
    STATE_UNLOCK(self);
    return changing;
}

void
change_lock(Instance *self)
{
    mutex_lock(&self->locks.ctl);
    if (!FREE_THREADED || !is_changed_in_place(self) || spin_until_zero(&self->users.changing)) {
        return;
    }
    unsigned count;
    Py_BEGIN_ALLOW_THREADS
    /* At the end of the interpreter, daemon threads stop wherever they are. */
    while ((count = self->users.changing) != 0 && Py_IsInitialized()) {
        futex_wait(&self->users.changing, count, -1);
    }
    Py_END_ALLOW_THREADS
}

uint32_t
change_next_generation(Instance *self)
{
    uint32_t next = self->generations.last + 1;
    next += next == 0;
    /* No read-modify-write: only the holder of the ctl lock writes it. */
    atomic_store_explicit(&self->generations.last, next, memory_order_relaxed);
    return next;
}

void
change_shadow(Instance *self, int fd)
{
    STATE_LOCK(self);
    Registration *slot = interest_slot(&self->list, fd);
    if (slot != NULL) {
        slot->shadowed = true;
    }
    STATE_UNLOCK(self);
}

Registration
change_forget(Instance *self, int fd)
{
    Registration lost = change_remove(self, fd);
    change_shadow(self, fd);
    always_ready_drop(self, fd);
    change_complete(self);
    return lost;
}

Registration
change_undo(Instance *self, int fd, Registration before)
{
    STATE_LOCK(self);
    Registration refused = interest_put(&self->list, fd, before);
    change_complete(self);
    STATE_UNLOCK(self);
    return refused;
}

int
change_kernel(const Instance *self, int op, int fd, uint32_t mask, uint64_t epoll_data)
{
    struct epoll_event event = {.events = mask, .data.u64 = epoll_data};
    int epfd = self->fds.epfd;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = epoll_ctl(epfd, op, fd, &event) < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return error;
}
