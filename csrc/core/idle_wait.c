#include "core/idle_wait.h"

#include "base/atfork.h"
#include "base/timed_wait.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* An epoll that watches the instance by edges: a new event wakes it, and an entry that merely stays ready
 * wakes it once. An fd, or -1. */
static int
new_edge_watcher(int epfd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int watcher_fd = epoll_create1(EPOLL_CLOEXEC);
    if (watcher_fd >= 0 && epoll_ctl(watcher_fd, EPOLL_CTL_ADD, epfd, &event) < 0) {
        close(watcher_fd);
        watcher_fd = -1;
    }
    return watcher_fd;
}

/* Without the GIL. */
static void
close_watcher(IdleWait *idle)
{
    if (idle->watcher_fd >= 0) {
        fork_close_private_fd(idle->watcher_fd);
        idle->watcher_fd = -1;
    }
}

/* Sleep for 1 ms, doubling to 16 ms, where the edge watcher is not enough: stale registrations have new
 * events all the time, or no fd was left for it. A live event is late by no more than that. False if a signal
 * has interrupted the sleep: its handler has to run first. */
static bool
pause_between_rounds(const IdleWait *idle, int64_t left, const sigset_t *set)
{
    enum { MILLISECOND = 1000000, DOUBLINGS = 4, FREE_ROUNDS = 4 };
    int over = idle->watcher_fd >= 0 ? idle->rounds - FREE_ROUNDS : idle->rounds;
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
wait_for_change(Instance *self, const WaitRequest *wait, IdleWait *idle)
{
    enum { QUIET = 50000000 }; /* nanoseconds without a new event, after which `rounds` starts again */
    WaitSnapshot snapshot;
    struct epoll_event event;
    const sigset_t *set = wait->masked ? &wait->set : NULL;
    if (instance_enter_wait(self, &snapshot) != 0) {
        return;
    }
    int64_t start = monotonic_now();
    Py_BEGIN_ALLOW_THREADS
    if (idle->watcher_fd < 0 || idle->rebuilt_at != snapshot.rebuilt_at) {
        close_watcher(idle);
        idle->watcher_fd = fork_private_fd(new_edge_watcher, snapshot.epfd);
        idle->rebuilt_at = snapshot.rebuilt_at;
    }
    if (pause_between_rounds(idle, wait_time_left(wait), set) && idle->watcher_fd >= 0) {
        timed_wait(idle->watcher_fd, &event, 1, wait_time_left(wait), set);
    }
    Py_END_ALLOW_THREADS
    if (monotonic_now() - start > QUIET) {
        idle->rounds = 0;
    }
    instance_leave_wait(self);
}

void
idle_wait_end(IdleWait *idle)
{
    if (idle->watcher_fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        close_watcher(idle);
        Py_END_ALLOW_THREADS
    }
}

bool
idle_wait_goes_on(Instance *self, const WaitRequest *wait, const Batch *batch, IdleWait *idle)
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
        wait_for_change(self, wait, idle);
    }
    return true;
}
