#include "core/report_again.h"

#include "core/always_ready.h"
#include "core/change.h"

/* Apply the mask of a registration in the kernel once more. An exclusive one cannot be modified, but it can
 * be removed and added with the same epoll data; false if that failed half-way. */
static bool
rearm_in_kernel(const Instance *self, uint64_t epoll_data, uint32_t mask)
{
    int fd = always_ready_target(self, epoll_data_fd(epoll_data), &mask);
    if ((mask & EPOLLEXCLUSIVE) == 0) {
        change_kernel(self, EPOLL_CTL_MOD, fd, mask, epoll_data);
        return true;
    }
    return change_kernel(self, EPOLL_CTL_DEL, fd, 0, 0) != 0 ||
           change_kernel(self, EPOLL_CTL_ADD, fd, mask, epoll_data) == 0;
}

/* The registration that is to report an event of the wait that took `snapshot` again, or NULL. Not for a
 * one-shot that a rebuild found fired, if its event was fetched before. With the state lock. */
static Registration *
find_to_rearm(const Instance *self, uint64_t epoll_data, const WaitSnapshot *snapshot)
{
    Registration *present = interest_find(&self->list, epoll_data);
    if (present == NULL || present->changed > snapshot->returned ||
        interest_is_disarmed(present, snapshot->started) || (present->mask & (EPOLLET | EPOLLONESHOT)) == 0) {
        return NULL;
    }
    present->disarmed = false;
    return present;
}

/* The mask to apply for such an event; 0 if there is none. */
static uint32_t
mask_to_rearm(Instance *self, uint64_t epoll_data, const WaitSnapshot *snapshot)
{
    STATE_LOCK(self);
    const Registration *present = find_to_rearm(self, epoll_data, snapshot);
    uint32_t mask = present != NULL ? present->mask : 0;
    STATE_UNLOCK(self);
    return mask;
}

/* A forked copy has no kernel instance yet: its registrations are armed when it gets one, so an unused copy
 * costs no system call. False if `self` is not such a copy. */
static bool
postpone_in_copy(Instance *self, uint64_t epoll_data, const WaitSnapshot *snapshot)
{
    instance_notice_fork(self);
    STATE_LOCK(self);
    bool copy = self->lifecycle.state == FORKED_COPY;
    Registration *present = copy ? find_to_rearm(self, epoll_data, snapshot) : NULL;
    if (present != NULL) {
        present->rearm_pending = true;
    }
    STATE_UNLOCK(self);
    return copy;
}

void
report_again(Instance *self, uint64_t epoll_data, const WaitSnapshot *snapshot)
{
    if (postpone_in_copy(self, epoll_data, snapshot) || instance_enter(self) != 0) {
        return;
    }
    Registration lost = {0};
    change_lock(self);
    uint32_t mask = mask_to_rearm(self, epoll_data, snapshot);
    if (mask != 0 && !rearm_in_kernel(self, epoll_data, mask)) {
        lost = change_forget(self, epoll_data_fd(epoll_data));
        STATE_LOCK(self);
        self->stats.lost++;
        STATE_UNLOCK(self);
    }
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
    registration_release(&lost);
}
