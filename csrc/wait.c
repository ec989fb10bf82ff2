#include "wait.h"

#include "convert.h"
#include "errors.h"
#include "stale.h"
#include "syscalls.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Whether to call epoll_pwait2; the kernel and its seccomp profile are the whole process's. */
static atomic_bool use_pwait2 = true;

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
    return atomic_exchange(&use_pwait2, use);
}

bool
wait_uses_pwait2(void)
{
    return atomic_load_explicit(&use_pwait2, memory_order_relaxed);
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t
wait_deadline(int64_t timeout)
{
    int64_t start = now();
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
wait_milliseconds(int epfd, Array *array, int maxevents, int64_t timeout, const sigset_t *set)
{
    return set != NULL ? epoll_pwait(epfd, array->events, maxevents, milliseconds(timeout), set)
                       : epoll_wait(epfd, array->events, maxevents, milliseconds(timeout));
}

/* One system call, without the GIL. The number of events, or -1 and errno. */
static int
wait_once(int epfd, Array *array, int maxevents, int64_t timeout, const sigset_t *set)
{
    if (timeout <= 0 || !wait_uses_pwait2()) {
        return wait_milliseconds(epfd, array, maxevents, timeout, set);
    }
    int count = sys_epoll_pwait2(epfd, array->events, maxevents, timeout, set);
    int error = errno;
    if (count >= 0 || error == EINTR || error == EBADF) {
        return count;
    }
    /* Before Linux 5.11 there is no such call, and a sandbox that does not know it answers what it likes: ENOSYS,
     * EPERM, EACCES, EINVAL. The error is the epoll's own only if the older call has the same. */
    count = wait_milliseconds(epfd, array, maxevents, timeout, set);
    if (count >= 0 || errno != error) {
        atomic_store(&use_pwait2, false);
    }
    return count;
}

/* How many events a wait should have room for. The kernel cannot report more than are registered,
 * and pages that it leaves alone cost nothing, so this follows the interest list, not `maxevents`. */
static int
room_for(const Instance *self, const Seen *seen, int maxevents)
{
    enum { LEAST = 64 };
    int wanted = self->foreign ? Py_MAX(seen->count, self->hint) : seen->count;
    int capacity = LEAST;
    while (capacity < wanted) {
        capacity *= 2;
    }
    return Py_MIN(capacity, maxevents);
}

/* Give the batch an array of `capacity`: the one it has, the one on hand, or a new one. 0 or -1. */
static int
reserve(Instance *self, Batch *batch, int capacity)
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
    int status = instance_enter_wait(self, &batch->seen);
    if (status != 0) {
        return status;
    }
    int capacity = room_for(self, &batch->seen, wait->maxevents);
    int epfd = self->epfd;
    int count = 0;
    *error = 0;
    if (reserve(self, batch, capacity) < 0) {
        PyErr_NoMemory();
        status = -1;
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        count = wait_once(epfd, batch->array, capacity, timeout, wait->masked ? &wait->set : NULL);
        *error = count < 0 ? errno : 0;
        Py_END_ALLOW_THREADS
    }
    batch->next = 0;
    batch->count = Py_MAX(count, 0);
    STATE_LOCK(self);
    self->events += (unsigned)batch->count;
    batch->seen.changes = self->changes; /* what the kernel was told while the wait slept came before */
    if (self->foreign && count == capacity) {
        self->hint = Py_MIN(capacity, INT_MAX / 4) * 2;
    }
    STATE_UNLOCK(self);
    instance_leave_wait(self);
    return status;
}

/* Whether an event can be handed out: its registration is live, and so is the fd, if that is about to be
 * checked. */
static bool
is_due(Instance *self, const Seen *seen, uint64_t word)
{
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, word);
    bool others = self->foreign && !instance_made(self, word);
    bool due = present != NULL ? !interest_is_spent(present, seen->removals) : others;
    bool unknown = present == NULL && !others;
    bool check = due && present != NULL && present->countdown <= 1;
    STATE_UNLOCK(self);
    if (unknown) {
        due = stale_judge(self, seen, word);
    }
    return due && (!check || stale_check_open(self, word));
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
    return wait->timeout > 0 && now() >= wait->deadline;
}

int
wait_any(Instance *self, const WaitFor *wait, Batch *batch)
{
    for (;;) {
        /* The time is asked once, for Py_MAX evaluates twice: less than 0 would be a wait for ever. */
        int64_t left = wait->timeout;
        if (left > 0) {
            left = wait->deadline - now();
            left = Py_MAX(left, 1);
        }
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
                os_error(error, "epoll_wait(epfd %d)", self->epfd);
            }
            return -1;
        }
        if (wait_has_expired(wait) || (left == 0 && error == 0)) {
            return 0;
        }
    }
}

int
wait_batch(Instance *self, const WaitFor *wait, Batch *batch)
{
    int status = 0;
    for (int polls = 0; polls < WAIT_MOST_POLLS; polls += wait->timeout == 0) {
        status = wait_any(self, wait, batch);
        if (status != 0 || batch->count == 0 || has_due(self, batch)) {
            return status;
        }
        batch->count = 0;
        if (wait_has_expired(wait)) {
            return 0;
        }
    }
    return status;
}
