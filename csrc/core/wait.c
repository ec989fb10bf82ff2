#include "core/wait.h"

#include "base/errors.h"
#include "base/timed_wait.h"
#include "core/idle_wait.h"
#include "core/repair/repair.h"
#include "core/repair/stale.h"
#include "core/report_again.h"

#include <errno.h>
#include <limits.h>

/* The number of events that a wait has room for. The kernel cannot report more than it watches, and pages
 * that it does not touch cost nothing, so this follows the interest list, not `maxevents`. */
static int
room_for(const WaitSnapshot *snapshot)
{
    enum { LEAST = 64 };
    int capacity = LEAST;
    while (capacity < snapshot->watched) {
        capacity *= 2;
    }
    return capacity;
}

/* Give the batch an array for `capacity` events: the one it has, the spare one, or a new one. 0 or -1. */
static int
ensure_capacity(Instance *self, Batch *batch, int capacity)
{
    if (batch->array == NULL) {
        STATE_LOCK(self);
        batch->array = self->batches.spare;
        self->batches.spare = NULL;
        STATE_UNLOCK(self);
    }
    if (batch->array != NULL && batch->array->capacity >= capacity) {
        return 0;
    }
    PyMem_Free(batch->array);
    batch->array = PyMem_Malloc(sizeof(EventArray) + (size_t)capacity * sizeof(struct epoll_event));
    if (batch->array == NULL) {
        return -1;
    }
    batch->array->capacity = capacity;
    return 0;
}

/* Fetch the ready events. 0, IS_CLOSED, or -1 with an exception; `*error` is the errno of the system call. */
static int
fetch(Instance *self, const WaitRequest *wait, int64_t timeout, Batch *batch, int *error)
{
    int status = repair_enter_wait(self, &batch->snapshot);
    if (status != 0) {
        return status;
    }
    /* The kernel may watch more than the registrations: those of others, and stale ones. */
    bool beside = self->foreign || batch->snapshot.stale;
    int room = room_for(&batch->snapshot);
    int capacity = batch->snapshot.stale ? room : Py_MIN(room, wait->maxevents);
    int epfd = batch->snapshot.epfd;
    int count = 0;
    *error = 0;
    if (ensure_capacity(self, batch, capacity) < 0) {
        PyErr_NoMemory();
        status = -1;
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        count = timed_wait(epfd, batch->array->events, capacity, timeout, wait->masked ? &wait->set : NULL);
        *error = count < 0 ? errno : 0;
        Py_END_ALLOW_THREADS
    }
    batch->next = 0;
    batch->count = Py_MAX(count, 0);
    batch->full = beside && count == room;
    STATE_LOCK(self);
    self->stats.events += (unsigned)batch->count;
    batch->snapshot.returned = self->clock.begun;
    if (batch->full) {
        self->batches.hint = Py_MIN(room, INT_MAX / 4) * 2;
    }
    STATE_UNLOCK(self);
    instance_leave_wait(self);
    return status;
}

/* Whether an event can be handed out: its registration is live, and so is the fd, if that is about to be
 * checked. */
static bool
is_deliverable(Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data)
{
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, epoll_data);
    bool others = self->foreign && !instance_made(self, epoll_data);
    bool due = present != NULL ? !interest_is_disarmed(present, snapshot->started) : others;
    bool unknown = present == NULL && !others;
    bool check = due && present != NULL && present->countdown <= 1;
    STATE_UNLOCK(self);
    if (unknown) {
        due = stale_classify(self, snapshot, epoll_data);
    }
    return due && (!check || stale_check_open(self, epoll_data));
}

/* Whether one of the events can be handed out, of an instance that is not closed. */
static bool
has_deliverable(Instance *self, const Batch *batch)
{
    bool due = false;
    STATE_LOCK(self);
    bool closed = self->lifecycle.state == CLOSED;
    STATE_UNLOCK(self);
    for (int i = 0; !due && !closed && i < batch->count; i++) {
        due = is_deliverable(self, &batch->snapshot, batch->array->events[i].data.u64);
    }
    return due;
}

/* 0, IS_CLOSED, or -1 with an exception. */
static int
wait_any(Instance *self, const WaitRequest *wait, Batch *batch)
{
    for (;;) {
        int64_t left = wait_time_left(wait);
        int error;
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        int status = fetch(self, wait, left, batch, &error);
        if (status != 0 || batch->count > 0) {
            return status;
        }
        if (error == EINTR ? PyErr_CheckSignals() < 0 : error != 0) {
            if (error != EINTR) {
                os_error(error, "epoll_wait(epfd %d)", instance_public_fd(self));
            }
            return -1;
        }
        if (wait_has_expired(wait) || (left == 0 && error == 0)) {
            return 0;
        }
    }
}

/* Mark the events beyond `maxevents`, and those that cannot be handed out, by the mask 0, which no event has.
 * Begins at the event `from` and goes around to the one before it. */
static void
mark_excess(Instance *self, const WaitRequest *wait, const Batch *batch, unsigned from)
{
    int chosen = 0;
    for (unsigned i = 0; i < (unsigned)batch->count; i++) {
        struct epoll_event *event = &batch->array->events[(from + i) % (unsigned)batch->count];
        if (!is_deliverable(self, &batch->snapshot, event->data.u64)) {
            event->events = 0;
        }
        else if (chosen++ >= wait->maxevents) {
            report_again(self, event->data.u64, &batch->snapshot);
            event->events = 0;
        }
    }
}

/* While stale registrations report, a batch has more than `maxevents` events: keep as many of those that can
 * be handed out, and give back the rest. The kernel reports them in the same order each time, so each choice
 * begins at the next event. */
static void
limit_to_maxevents(Instance *self, const WaitRequest *wait, Batch *batch)
{
    struct epoll_event *events = batch->array->events;
    STATE_LOCK(self);
    unsigned from = self->batches.limited++;
    STATE_UNLOCK(self);
    mark_excess(self, wait, batch, from);
    int kept = 0;
    for (int i = 0; i < batch->count; i++) {
        if (events[i].events != 0) {
            events[kept++] = events[i];
        }
    }
    batch->count = kept;
}

int
wait_fetch(Instance *self, const WaitRequest *wait, Batch *batch)
{
    int status = wait_any(self, wait, batch);
    batch->fetched = batch->count;
    if (status == 0 && batch->count > 0 && batch->snapshot.stale) {
        limit_to_maxevents(self, wait, batch);
    }
    return status;
}

int
wait_batch(Instance *self, const WaitRequest *wait, Batch *batch)
{
    IdleWait idle = IDLE_WAIT_START;
    int status;
    bool again;
    do {
        status = wait_fetch(self, wait, batch);
        again = status == 0 && batch->fetched > 0 && !has_deliverable(self, batch);
        if (again) {
            batch->count = 0;
            again = idle_wait_goes_on(self, wait, batch, &idle);
        }
    } while (again);
    idle_wait_end(&idle);
    return status;
}
