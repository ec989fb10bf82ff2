#include "core/change.h"

#include <errno.h>

uint32_t
change_next_generation(Instance *self)
{
    self->generation++;
    return self->generation != 0 ? self->generation : ++self->generation;
}

Registration
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

Registration
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
change_kernel(const Instance *self, int op, int fd, uint32_t mask, uint32_t generation)
{
    struct epoll_event event = {.events = mask, .data.u64 = epoll_data_of(fd, generation)};
    int epfd = self->epfd;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = epoll_ctl(epfd, op, fd, &event) < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return error;
}
