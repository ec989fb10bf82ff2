#include "core/repair/repair.h"

#include "base/fdinfo.h"
#include "base/monotonic.h"
#include "core/change.h"
#include "core/repair/forked_copy.h"
#include "core/repair/rebuild.h"

/* After a repair, none is tried again for so many times its own duration: repairs take a bounded part of the
 * time. Until then stale events are dropped one by one. */
enum { REST_AFTER_SUCCESS = 10, REST_AFTER_FAILURE = 100 };

typedef enum {
    GONE,    /* there is no stale registration any more: the last duplicate was closed */
    DELETED, /* by epoll_ctl */
    REBUILT,
    FAILED,
} RepairOutcome;

/* The entries of the kernel's list, as far as they matter to a stale registration. */
typedef struct {
    const Instance *instance;
    uint64_t known;  /* the epoll data of one that has reported */
    bool stale;      /* there is one */
    int same_fd;     /* entries under the fd that is known to have one */
    bool same_entry; /* one of them has its epoll data */
} StaleSearch;

static bool
see_stale_entry(const KernelEntry *entry, void *arg)
{
    StaleSearch *search = arg;
    const Instance *self = search->instance;
    if (entry->fd == epoll_data_fd(search->known)) {
        search->same_fd++;
        search->same_entry |= entry->data == search->known;
    }
    search->stale |= entry->data != 0 && interest_find(&self->list, entry->data) == NULL;
    return self->foreign || !search->stale;
}

/* Whether the fd may refer to a file that is listed for a reason of its own: a registration, or an eventfd of
 * ours, which can have got the fd after it was closed. With the ctl lock. */
static bool
is_in_use(const Instance *self, int fd)
{
    return interest_get(&self->list, fd) != NULL || stand_in_index_of_eventfd(&self->stand_ins, fd) >= 0 ||
           fd == self->module->always_ready_fd;
}

/* The fd may refer to the file again, as another duplicate: then the kernel removes the entry. Only for an
 * entry of ours: in a foreign instance it is removed only if others have none under this fd. */
static bool
delete_entry(const Instance *self, int fd)
{
    return !is_in_use(self, fd) &&
           epoll_ctl(self->fds.epfd, EPOLL_CTL_DEL, fd, &(struct epoll_event){0}) == 0;
}

/* Repair without a rebuild; FAILED if that is impossible. `known` is the epoll data of a stale registration:
 * passed in, because another may be found in the instance at any time. Without the GIL. */
static RepairOutcome
repair_in_place(const Instance *self, uint64_t known)
{
    StaleSearch search = {.instance = self, .known = known};
    int fd = epoll_data_fd(known);
    if (!self->foreign && delete_entry(self, fd)) {
        return DELETED;
    }
    int error = fdinfo_each(self->fds.epfd, true, see_stale_entry, &search);
    if (self->foreign) {
        bool alone = error == 0 && search.same_fd == 1 && search.same_entry;
        return alone && delete_entry(self, fd) ? DELETED : FAILED;
    }
    return error == 0 && !search.stale ? GONE : FAILED;
}

/* Wait, a second at most, until the last waiter has left. */
static void
wait_until_drained(Instance *self)
{
    enum { SLICE = 100000000 }; /* nanoseconds */
    int64_t end = monotonic_now() + 10 * (int64_t)SLICE;
    Py_BEGIN_ALLOW_THREADS
    while (atomic_load(&self->drain.done) == 0 && monotonic_now() < end) {
        futex_wait(&self->drain.done, 0, SLICE);
    }
    Py_END_ALLOW_THREADS
}

/* Wake the waiters and wait until they have left. False if they do not leave in time. */
static bool
drain(Instance *self)
{
    STATE_LOCK(self);
    self->drain.active = self->users.waiting > 0;
    self->drain.done = 0;
    bool waiting = self->drain.active;
    STATE_UNLOCK(self);
    if (!waiting) {
        return true;
    }
    int epfd = self->fds.epfd;
    if (instance_wake(self, epfd) == 0) {
        wait_until_drained(self);
    }
    Py_BEGIN_ALLOW_THREADS
    instance_unwake(self, epfd);
    Py_END_ALLOW_THREADS
    STATE_LOCK(self);
    self->drain.active = false;
    bool drained = self->users.waiting == 0 && self->lifecycle.state == OPEN;
    STATE_UNLOCK(self);
    return drained;
}

/* With the ctl lock. */
static RepairOutcome
repair_locked(Instance *self, LostRegistrations *lost)
{
    RepairOutcome outcome;
    STATE_LOCK(self);
    uint64_t known = self->stale.epoll_data;
    STATE_UNLOCK(self);
    Py_BEGIN_ALLOW_THREADS
    outcome = repair_in_place(self, known);
    Py_END_ALLOW_THREADS
    if (outcome == FAILED && !self->foreign && instance_begin_fd_change(self)) {
        outcome = drain(self) && rebuild(self, false, lost) == 0 ? REBUILT : FAILED;
        instance_end_fd_change(self);
    }
    return outcome;
}

/* Remove a stale registration, or wait while another thread does. */
static void
repair_stale(Instance *self)
{
    LostRegistrations lost = {0};
    if (instance_enter(self) != 0) {
        return;
    }
    change_lock(self);
    STATE_LOCK(self);
    bool due = instance_repair_is_due(self);
    STATE_UNLOCK(self);
    if (due) {
        int64_t start = monotonic_now();
        RepairOutcome outcome = repair_locked(self, &lost);
        int64_t end = monotonic_now();
        STATE_LOCK(self);
        self->stale.found = outcome == FAILED;
        self->stale.retry_at = end +
                               (end - start) * (outcome == FAILED ? REST_AFTER_FAILURE : REST_AFTER_SUCCESS);
        self->stats.rebuilds += outcome == REBUILT || outcome == DELETED;
        self->stats.failed_rebuilds += outcome == FAILED;
        STATE_UNLOCK(self);
    }
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
    lost_registrations_release(&lost);
}

int
repair_and_enter(Instance *self)
{
    int status = NEEDS_REPAIR;
    while (status == NEEDS_REPAIR) {
        if (forked_copy_adopt(self) < 0) {
            return -1;
        }
        status = instance_enter(self);
    }
    return status;
}

int
repair_and_enter_wait(Instance *self, WaitSnapshot *snapshot)
{
    int status = NEEDS_REPAIR;
    while (status == NEEDS_REPAIR) {
        STATE_LOCK(self);
        bool open = self->lifecycle.state == OPEN;
        STATE_UNLOCK(self);
        if (open) {
            repair_stale(self);
        }
        else if (forked_copy_adopt(self) < 0) {
            return -1;
        }
        status = instance_enter_wait(self, snapshot);
    }
    return status;
}
