#include "wait.h"

#include "base/syscalls.h"
#include "convert.h"
#include "core/repair/repair.h"
#include "core/repair/stale.h"
#include "core/report_again.h"
#include "errors.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Whether to call epoll_pwait2; the kernel and its seccomp profile are the whole process's. */
enum { PWAIT2_USED, PWAIT2_SWITCHED_OFF, PWAIT2_REFUSED };
static atomic_int pwait2 = PWAIT2_USED;

void
wait_read_environment(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    const char *value = getenv("PYEPOLL_NO_PWAIT2");
    if (!atomic_flag_test_and_set(&done) && value != NULL && value[0] != '\0' && strcmp(value, "0") != 0) {
        wait_use_pwait2(false);
    }
}

bool
wait_use_pwait2(bool use)
{
    return atomic_exchange(&pwait2, use ? PWAIT2_USED : PWAIT2_SWITCHED_OFF) == PWAIT2_USED;
}

bool
wait_uses_pwait2(void)
{
    return atomic_load_explicit(&pwait2, memory_order_relaxed) == PWAIT2_USED;
}

bool
wait_switched_off_pwait2(void)
{
    return atomic_load_explicit(&pwait2, memory_order_relaxed) == PWAIT2_SWITCHED_OFF;
}

int64_t
wait_deadline(int64_t timeout)
{
    int64_t start = monotonic_now();
    return timeout < INT64_MAX - start ? start + timeout : INT64_MAX;
}

/* For epoll_wait: rounded up, and as much as fits; what is left is waited after that. */
static int
milliseconds(int64_t nanoseconds)
{
    if (nanoseconds <= 0) {
        return (int)nanoseconds; /* 0, or -1 for ever */
    }
    int64_t rounded = (nanoseconds - 1) / 1000000 + 1;
    return rounded < INT_MAX ? (int)rounded : INT_MAX;
}

/* The same wait by the older system calls. */
static int
wait_milliseconds(int epfd, struct epoll_event *events, int maxevents, int64_t timeout, const sigset_t *set)
{
    return set != NULL ? epoll_pwait(epfd, events, maxevents, milliseconds(timeout), set)
                       : epoll_wait(epfd, events, maxevents, milliseconds(timeout));
}

/* One system call, without the GIL. The number of events, or -1 and errno. */
static int
wait_once(int epfd, struct epoll_event *events, int maxevents, int64_t timeout, const sigset_t *set)
{
    if (timeout <= 0 || !wait_uses_pwait2()) {
        return wait_milliseconds(epfd, events, maxevents, timeout, set);
    }
    int count = sys_epoll_pwait2(epfd, events, maxevents, timeout, set);
    int error = errno;
    if (count >= 0 || error == EINTR || error == EBADF) {
        return count;
    }
    /* Before Linux 5.11 there is no such call, and a sandbox that does not know it answers what it likes:
     * ENOSYS, EPERM, EACCES, EINVAL. The error is the epoll's own only if the older call has the same. */
    count = wait_milliseconds(epfd, events, maxevents, timeout, set);
    if (count >= 0 || errno != error) {
        int used = PWAIT2_USED; /* what the program has switched off meanwhile stays so */
        atomic_compare_exchange_strong(&pwait2, &used, PWAIT2_REFUSED);
    }
    return count;
}

/* How many events a wait should have room for. The kernel cannot report more than it watches, and pages that
 * it leaves alone cost nothing, so this follows the interest list, not `maxevents`. */
static int
room_for(const Seen *seen)
{
    enum { LEAST = 64 };
    int capacity = LEAST;
    while (capacity < seen->watched) {
        capacity *= 2;
    }
    return capacity;
}

/* Give the batch an array of `capacity`: the one it has, the one on hand, or a new one. 0 or -1. */
static int
reserve_array(Instance *self, Batch *batch, int capacity)
{
    if (batch->array == NULL) {
        STATE_LOCK(self);
        batch->array = self->spare;
        self->spare = NULL;
        STATE_UNLOCK(self);
    }
    if (batch->array != NULL && batch->array->capacity >= capacity) {
        return 0;
    }
    PyMem_Free(batch->array);
    batch->array = PyMem_Malloc(sizeof(Array) + (size_t)capacity * sizeof(struct epoll_event));
    if (batch->array == NULL) {
        return -1;
    }
    batch->array->capacity = capacity;
    return 0;
}

/* Fetch what is ready. 0, IS_CLOSED, or -1 with an exception; `*error` is what epoll_wait said. */
static int
fetch(Instance *self, const WaitFor *wait, int64_t timeout, Batch *batch, int *error)
{
    int status = repair_enter_wait(self, &batch->seen);
    if (status != 0) {
        return status;
    }
    /* What the kernel watches besides the registrations: those of others, and stale ones. */
    bool beside = self->foreign || batch->seen.stale;
    int room = room_for(&batch->seen);
    int capacity = batch->seen.stale ? room : Py_MIN(room, wait->maxevents);
    int epfd = batch->seen.epfd;
    int count = 0;
    *error = 0;
    if (reserve_array(self, batch, capacity) < 0) {
        PyErr_NoMemory();
        status = -1;
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        count = wait_once(epfd, batch->array->events, capacity, timeout, wait->masked ? &wait->set : NULL);
        *error = count < 0 ? errno : 0;
        Py_END_ALLOW_THREADS
    }
    batch->next = 0;
    batch->count = Py_MAX(count, 0);
    batch->full = beside && count == room;
    STATE_LOCK(self);
    self->events += (unsigned)batch->count;
    batch->seen.returned = self->begun;
    if (batch->full) {
        self->hint = Py_MIN(room, INT_MAX / 4) * 2;
    }
    STATE_UNLOCK(self);
    instance_leave_wait(self);
    return status;
}

/* Whether an event can be handed out: its registration is live, and so is the fd, if that is about to be
 * checked. */
static bool
is_due(Instance *self, const Seen *seen, uint64_t epoll_data)
{
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, epoll_data);
    bool others = self->foreign && !instance_made(self, epoll_data);
    bool due = present != NULL ? !interest_is_disarmed(present, seen->started) : others;
    bool unknown = present == NULL && !others;
    bool check = due && present != NULL && present->countdown <= 1;
    STATE_UNLOCK(self);
    if (unknown) {
        due = stale_judge(self, seen, epoll_data);
    }
    return due && (!check || stale_check_open(self, epoll_data));
}

/* Whether one of the events can be handed out, of an instance that is not closed. */
static bool
has_due(Instance *self, const Batch *batch)
{
    bool due = false;
    STATE_LOCK(self);
    bool closed = self->standing == CLOSED;
    STATE_UNLOCK(self);
    for (int i = 0; !due && !closed && i < batch->count; i++) {
        due = is_due(self, &batch->seen, batch->array->events[i].data.u64);
    }
    return due;
}

bool
wait_has_expired(const WaitFor *wait)
{
    return wait->timeout > 0 && monotonic_now() >= wait->deadline;
}

/* What is left of the timeout, above 0 if it was. The time is asked once, for Py_MAX evaluates twice. */
static int64_t
time_left(const WaitFor *wait)
{
    if (wait->timeout <= 0) {
        return wait->timeout;
    }
    int64_t left = wait->deadline - monotonic_now();
    return Py_MAX(left, 1);
}

/* 0, IS_CLOSED, or -1 with an exception. */
static int
wait_any(Instance *self, const WaitFor *wait, Batch *batch)
{
    for (;;) {
        int64_t left = time_left(wait);
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

/* Choose from an event on, around to the one before it. The mask of the others becomes 0, which no event has.
 */
static void
choose(Instance *self, const WaitFor *wait, const Batch *batch, unsigned from)
{
    int chosen = 0;
    for (unsigned i = 0; i < (unsigned)batch->count; i++) {
        struct epoll_event *event = &batch->array->events[(from + i) % (unsigned)batch->count];
        if (!is_due(self, &batch->seen, event->data.u64)) {
            event->events = 0;
        }
        else if (chosen++ >= wait->maxevents) {
            report_again(self, event->data.u64, &batch->seen);
            event->events = 0;
        }
    }
}

/* While stale registrations report, a batch has more than `maxevents`: keep so many of those that can be
 * handed out, and give back the rest. The kernel reports all of them in the same order each time, so the
 * choice begins at another each time. */
static void
sift(Instance *self, const WaitFor *wait, Batch *batch)
{
    struct epoll_event *events = batch->array->events;
    STATE_LOCK(self);
    unsigned from = self->sifted++;
    STATE_UNLOCK(self);
    choose(self, wait, batch, from);
    int kept = 0;
    for (int i = 0; i < batch->count; i++) {
        if (events[i].events != 0) {
            events[kept++] = events[i];
        }
    }
    batch->count = kept;
}

/* An epoll that watches the instance by edges wakes when something new happens in it; what merely goes on
 * being ready, as a stale registration does, wakes it once. An fd, or -1. */
static int
new_guard(int epfd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int guard_fd = epoll_create1(EPOLL_CLOEXEC);
    if (guard_fd >= 0 && epoll_ctl(guard_fd, EPOLL_CTL_ADD, epfd, &event) < 0) {
        close(guard_fd);
        guard_fd = -1;
    }
    return guard_fd;
}

/* Without the GIL. */
static void
close_guard(Idle *idle)
{
    if (idle->guard_fd >= 0) {
        fork_close_private_fd(idle->guard_fd);
        idle->guard_fd = -1;
    }
}

/* Where the guard does not help, since stale registrations have new events all the time or no fd is left for
 * it: rest from 1 ms, doubling to 16 ms, so that a live event is late by no more. False where a signal has
 * ended that, whose handler is to run first. */
static bool
rest_a_while(const Idle *idle, int64_t left, const sigset_t *set)
{
    enum { MILLISECOND = 1000000, DOUBLINGS = 4, FREE_ROUNDS = 4 };
    int over = idle->guard_fd >= 0 ? idle->rounds - FREE_ROUNDS : idle->rounds;
    if (over <= 0) {
        return true;
    }
    int64_t pause = (int64_t)MILLISECOND << Py_MIN(over - 1, DOUBLINGS);
    pause = left >= 0 ? Py_MIN(pause, left) : pause;
    struct timespec span = {0, (long)pause};
    return ppoll(NULL, 0, &span, set) == 0 || errno != EINTR;
}

/* Wait until something happens in the instance besides stale registrations that go on reporting; close(), a
 * rebuild and signals end the wait too. May return early. */
static void
wait_guarded(Instance *self, const WaitFor *wait, Idle *idle)
{
    enum { QUIET = 50000000 }; /* nanoseconds without a new event, after which all is forgiven */
    Seen seen;
    struct epoll_event event;
    const sigset_t *set = wait->masked ? &wait->set : NULL;
    if (instance_enter_wait(self, &seen) != 0) {
        return;
    }
    int64_t start = monotonic_now();
    Py_BEGIN_ALLOW_THREADS
    if (idle->guard_fd < 0 || idle->rebuilt_at != seen.rebuilt) {
        close_guard(idle);
        idle->guard_fd = fork_private_fd(new_guard, seen.epfd);
        idle->rebuilt_at = seen.rebuilt;
    }
    if (rest_a_while(idle, time_left(wait), set) && idle->guard_fd >= 0) {
        wait_once(idle->guard_fd, &event, 1, time_left(wait), set);
    }
    Py_END_ALLOW_THREADS
    if (monotonic_now() - start > QUIET) {
        idle->rounds = 0;
    }
    instance_leave_wait(self);
}

void
wait_idle_end(Idle *idle)
{
    if (idle->guard_fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        close_guard(idle);
        Py_END_ALLOW_THREADS
    }
}

bool
wait_goes_on(Instance *self, const WaitFor *wait, const Batch *batch, Idle *idle)
{
    enum { MOST_POLLS = 16, FEW_POLLS = 4 };
    if (wait_has_expired(wait)) {
        return false;
    }
    STATE_LOCK(self);
    bool unresolved = self->stale.found && !instance_repair_is_due(self);
    STATE_UNLOCK(self);
    idle->rounds++;
    if (wait->timeout == 0) {
        return batch->full || idle->rounds < (unresolved ? FEW_POLLS : MOST_POLLS);
    }
    if (unresolved && !batch->full) {
        wait_guarded(self, wait, idle);
    }
    return true;
}

int
wait_fetch(Instance *self, const WaitFor *wait, Batch *batch)
{
    int status = wait_any(self, wait, batch);
    batch->fetched = batch->count;
    if (status == 0 && batch->count > 0 && batch->seen.stale) {
        sift(self, wait, batch);
    }
    return status;
}

int
wait_batch(Instance *self, const WaitFor *wait, Batch *batch)
{
    Idle idle = IDLE_START;
    int status;
    bool again;
    do {
        status = wait_fetch(self, wait, batch);
        again = status == 0 && batch->fetched > 0 && !has_due(self, batch);
        if (again) {
            batch->count = 0;
            again = wait_goes_on(self, wait, batch, &idle);
        }
    } while (again);
    wait_idle_end(&idle);
    return status;
}
