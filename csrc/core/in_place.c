#include "core/in_place.h"

#include "core/change.h"

void
in_place_exchange_data(Registration *present, PyObject *data, Registration *old)
{
    old->data = present->data;
    old->pair = present->pair;
    present->data = Py_NewRef(data);
    present->pair = NULL;
    present->reported = 0;
}

void
in_place_install(InPlace *change, uint64_t now)
{
    Registration *present = change->present;
    change->old = (Registration){
        .mask = present->mask, .disarmed = present->disarmed, .changed = present->changed};
    present->mask = change->mask;
    present->disarmed = false;
    present->changed = now;
    if (change->data != NULL) {
        in_place_exchange_data(present, change->data, &change->old);
    }
}

void
in_place_put_back(InPlace *change)
{
    Registration *present = change->present;
    present->mask = change->old.mask;
    present->disarmed = change->old.disarmed;
    present->changed = change->old.changed;
    if (change->data != NULL) {
        PyObject *refused = present->data;
        present->data = change->old.data;
        change->old.data = refused;
        /* The pair with the refused data goes too: the next event makes another. */
        PyObject *pair = present->pair;
        present->pair = change->old.pair;
        present->reported = 0;
        change->old.pair = pair;
    }
}

typedef enum { BEGUN, BUSY, REFUSED } Beginning;

/* With the state lock, so without a read-modify-write. */
static void
count_changing(Instance *self, unsigned change)
{
    unsigned now = atomic_load_explicit(&self->users.changing, memory_order_relaxed) + change;
    atomic_store_explicit(&self->users.changing, now, memory_order_release);
}

/* Whether a change of `fd` can be made in place without the ctl lock: the kernel has one entry for it, and no
 * other change of it is under way. With the state lock. */
static bool
is_plain(const Instance *self, int fd, const Registration *present)
{
    return present != NULL && !present->shadowed && !present->changing && self->stand_ins.count == 0 &&
           fd != self->fds.front && fd != self->fds.epfd && !self->foreign;
}

/* Enter, and change our list. The clock counts the change as complete at once: it is about generations, and
 * this one stays. `*epfd` and `*event` are for epoll_ctl. `holds_ctl`: the caller has the ctl lock. */
static Beginning
begin_in_place(Instance *self, int fd, bool rearm, bool holds_ctl, InPlace *change, int *epfd,
               struct epoll_event *event)
{
    Beginning result = REFUSED;
    STATE_LOCK(self);
    Registration *present = interest_get(&self->list, fd);
    if (!holds_ctl && !mutex_is_free(&self->locks.ctl)) {
        result = BUSY;
    }
    else if (self->lifecycle.state == OPEN && self->lifecycle.epoch == fork_epoch() &&
             is_plain(self, fd, present)) {
        change->present = present;
        change->mask = rearm ? present->mask : change->mask;
        in_place_install(change, change_begin(self));
        change_complete(self);
        present->changing = true;
        count_changing(self, 1);
        self->users.entered++;
        *epfd = self->fds.epfd;
        *event = (struct epoll_event){change->mask, {.u64 = epoll_data_of(fd, present->generation)}};
        result = BEGUN;
    }
    STATE_UNLOCK(self);
    return result;
}

/* Put our list back if the kernel has refused, and leave. */
static void
end_in_place(Instance *self, InPlace *change, bool refused)
{
    STATE_LOCK(self);
    if (refused) {
        in_place_put_back(change);
    }
    change->present->changing = false;
    count_changing(self, -1u);
    /* Whoever waits in change_lock() has the ctl lock. */
    bool wakes = self->users.changing == 0 && !mutex_is_free(&self->locks.ctl);
    bool plain = self->lifecycle.state == OPEN;
    self->users.entered -= plain;
    STATE_UNLOCK(self);
    if (wakes) {
        futex_wake_all(&self->users.changing);
    }
    if (!plain) {
        instance_leave_slowly(self, false);
    }
}

bool
in_place_modify(Instance *self, int fd, bool rearm, uint32_t mask, PyObject *data)
{
    InPlace change = {.mask = mask, .data = data};
    struct epoll_event event;
    int epfd;
    Beginning beginning = begin_in_place(self, fd, rearm, false, &change, &epfd, &event);
    if (beginning == BUSY) {
        /* Wait, but release the lock at once: else others would find it taken, wait, and so on. */
        mutex_lock(&self->locks.ctl);
        beginning = begin_in_place(self, fd, rearm, true, &change, &epfd, &event);
        mutex_unlock(&self->locks.ctl);
    }
    if (beginning != BEGUN) {
        return false;
    }
    bool refused;
    Py_BEGIN_ALLOW_THREADS
    refused = epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) < 0;
    Py_END_ALLOW_THREADS
    end_in_place(self, &change, refused);
    registration_release(&change.old);
    return !refused;
}
