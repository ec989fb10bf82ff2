#include "core/always_ready.h"

#include <errno.h>

/* epoll_ctl for a stand-in, without the GIL. 0 or an errno. */
static int
ctl_stand_in(const Instance *self, int op, const StandIn *item, uint32_t mask, uint32_t generation)
{
    struct epoll_event event = {
        .events = stand_in_mask(mask),
        .data.u64 = epoll_data_of(item->fd, generation),
    };
    int epfd = self->fds.epfd;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = epoll_ctl(epfd, op, item->eventfd, &event) < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return error;
}

/* Note in the registration of `fd` whether it has a stand-in. */
static void
mark(Instance *self, int fd, bool stands_in)
{
    STATE_LOCK(self);
    Registration *slot = interest_slot(&self->list, fd);
    if (slot != NULL) {
        slot->always_ready = stands_in;
        /* No event of it takes the short cut: the kernel would not notice that the fd was closed. */
        slot->countdown = stands_in ? 1 : slot->countdown;
    }
    STATE_UNLOCK(self);
}

static void
drop_at(Instance *self, int index)
{
    STATE_LOCK(self);
    StandIn item = stand_in_take(&self->stand_ins, index);
    STATE_UNLOCK(self);
    int epfd = self->fds.epfd;
    Py_BEGIN_ALLOW_THREADS
    stand_in_close(&item, epfd);
    Py_END_ALLOW_THREADS
}

void
always_ready_drop(Instance *self, int fd)
{
    int index = stand_in_index(&self->stand_ins, fd);
    if (index >= 0) {
        mark(self, fd, false);
        drop_at(self, index);
    }
}

/* Make a stand-in and add it to the table: our list is changed first, as in core/change.h. 0, an errno, or -1
 * for no memory. */
static int
make(Instance *self, int fd)
{
    StandIn item = {.fd = fd};
    int error;
    Py_BEGIN_ALLOW_THREADS
    item.eventfd = stand_in_eventfd(fd);
    error = item.eventfd < 0 ? errno : 0;
    item.file = sys_file_id(fd);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        return error;
    }
    STATE_LOCK(self);
    int status = stand_in_reserve(&self->stand_ins, item.eventfd);
    if (status == 0) {
        stand_in_insert(&self->stand_ins, item);
    }
    STATE_UNLOCK(self);
    if (status < 0) {
        close(item.eventfd);
        return -1;
    }
    mark(self, fd, true);
    return 0;
}

/* Let a new stand-in report for `fd`, instead of the one at the index `earlier` if that is not -1. */
static int
add(Instance *self, int fd, uint32_t mask, uint32_t generation, int earlier)
{
    int error = make(self, fd);
    if (error != 0) {
        return error;
    }
    int index = stand_in_index(&self->stand_ins, fd); /* of the new one */
    const StandIn item = self->stand_ins.items[index];
    error = ctl_stand_in(self, EPOLL_CTL_ADD, &item, mask, generation);
    if (error != 0) {
        drop_at(self, index);
    }
    else if (earlier >= 0) {
        drop_at(self, earlier);
    }
    return error;
}

static int
modify(Instance *self, const StandIn *item, uint32_t mask, uint32_t generation)
{
    mark(self, item->fd, true);
    int error = ctl_stand_in(self, EPOLL_CTL_MOD, item, mask, generation);
    return error == EBADF ? ENOENT : error; /* the eventfd was closed behind our back */
}

int
always_ready_settle(Instance *self, int op, int fd, uint32_t mask, uint32_t generation, int error)
{
    int index = stand_in_index(&self->stand_ins, fd);
    const StandIn present = index >= 0 ? self->stand_ins.items[index] : (StandIn){.fd = -1};
    int epfd = self->fds.epfd;
    bool refused = false, same = false;
    if (error == EPERM && self->always_ready) {
        Py_BEGIN_ALLOW_THREADS
        refused = sys_epoll_ctl_denied(epfd) != EPERM;
        same = refused && index >= 0 && stand_in_is_current(&present);
        Py_END_ALLOW_THREADS
    }
    if (refused && op == EPOLL_CTL_ADD) {
        return same ? EEXIST : add(self, fd, mask, generation, index);
    }
    if (same && op == EPOLL_CTL_MOD) {
        return modify(self, &present, mask, generation);
    }
    /* Where the kernel accepts the fd, it now refers to another file. */
    if (error == 0 || op == EPOLL_CTL_DEL) {
        always_ready_drop(self, fd);
    }
    return same ? 0 : refused ? ENOENT : error;
}

bool
always_ready_owns_slowly(Instance *self, int fd)
{
    int index = stand_in_index_of_eventfd(&self->stand_ins, fd);
    bool owns = index >= 0;
    if (owns) {
        const StandIn item = self->stand_ins.items[index];
        Py_BEGIN_ALLOW_THREADS
        owns = stand_in_has_eventfd(&item, true);
        Py_END_ALLOW_THREADS
    }
    if (index >= 0 && !owns) {
        /* Another file has this fd, and may be registered: no change of ours may reach it. */
        STATE_LOCK(self);
        stand_in_forget_eventfd(&self->stand_ins, index);
        STATE_UNLOCK(self);
    }
    return owns;
}

int
always_ready_target(const Instance *self, int fd, uint32_t *mask)
{
    int index = stand_in_index(&self->stand_ins, fd);
    if (index < 0) {
        return fd;
    }
    *mask = stand_in_mask(*mask);
    return self->stand_ins.items[index].eventfd;
}

bool
always_ready_is_current(Instance *self, uint64_t epoll_data)
{
    int fd = epoll_data_fd(epoll_data);
    StandIn item = {.fd = -1};
    bool current = true;
    STATE_LOCK(self);
    const Registration *present = interest_find(&self->list, epoll_data);
    int index = present != NULL && present->always_ready ? stand_in_index(&self->stand_ins, fd) : -1;
    if (index >= 0) {
        item = self->stand_ins.items[index];
    }
    STATE_UNLOCK(self);
    if (item.fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        current = stand_in_is_current(&item);
        Py_END_ALLOW_THREADS
    }
    return current;
}
