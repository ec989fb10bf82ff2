#include "core/repair/stale.h"

#include "core/change.h"

#include <errno.h>
#include <fcntl.h>

typedef enum { LIVE, UNSETTLED, LATE, STALE } Verdict;

/* With the state lock. */
static Verdict
judge(const Instance *self, const Seen *seen, uint64_t epoll_data)
{
    const Registration *slot = interest_slot(&self->list, epoll_data_fd(epoll_data));
    if (interest_find(&self->list, epoll_data) != NULL) {
        return LIVE;
    }
    if (slot != NULL && change_is_under_way(self, slot)) {
        return UNSETTLED;
    }
    uint64_t changed = slot != NULL ? slot->changed : 0;
    return seen->started >= changed && seen->started >= self->stale.rebuilt_at ? STALE : LATE;
}

/* With the state lock. */
static void
count(Instance *self, Verdict verdict, uint64_t epoll_data)
{
    self->stale_events += verdict == LATE || verdict == STALE;
    if (verdict == STALE && self->standing == OPEN) {
        self->stale.found = true;
        self->stale.epoll_data = epoll_data;
    }
}

/* What wakes the waiters, and the front's entry, which a wait meets that began before there was a front. */
static bool
is_mark(const Instance *self, uint64_t epoll_data)
{
    return epoll_data == 0 || epoll_data_generation(epoll_data) == self->first;
}

bool
stale_judge(Instance *self, const Seen *seen, uint64_t epoll_data)
{
    if (is_mark(self, epoll_data)) {
        return false;
    }
    STATE_LOCK(self);
    Verdict verdict = judge(self, seen, epoll_data);
    count(self, verdict, epoll_data);
    STATE_UNLOCK(self);
    if (verdict != UNSETTLED || instance_enter(self) != 0) {
        return verdict == LIVE;
    }
    mutex_lock(&self->ctl);
    STATE_LOCK(self);
    verdict = judge(self, seen, epoll_data);
    count(self, verdict, epoll_data);
    STATE_UNLOCK(self);
    mutex_unlock(&self->ctl);
    instance_leave(self);
    return verdict == LIVE;
}

/* With the ctl lock. What was registered is the caller's. */
static Registration
forget_closed(Instance *self, uint64_t epoll_data)
{
    int fd = epoll_data_fd(epoll_data);
    Registration lost = {0};
    if (interest_find(&self->list, epoll_data) != NULL && fcntl(fd, F_GETFD) < 0) {
        lost = change_remove(self, fd);
        change_shadow(self, fd);
        change_complete(self);
        STATE_LOCK(self);
        self->lost++;
        count(self, STALE, epoll_data);
        STATE_UNLOCK(self);
    }
    return lost;
}

bool
stale_check_open(Instance *self, uint64_t epoll_data)
{
    if (fcntl(epoll_data_fd(epoll_data), F_GETFD) >= 0 || errno != EBADF) {
        return true;
    }
    if (instance_enter(self) != 0) {
        return true;
    }
    mutex_lock(&self->ctl);
    Registration lost = forget_closed(self, epoll_data);
    mutex_unlock(&self->ctl);
    instance_leave(self);
    registration_release(&lost);
    return lost.generation == 0;
}
