#include "base/timed_wait.h"

#include "base/syscalls.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Whether to call epoll_pwait2. One setting for the process, as the kernel and its seccomp profile are. */
enum { PWAIT2_USED, PWAIT2_SWITCHED_OFF, PWAIT2_REFUSED };
static atomic_int pwait2 = PWAIT2_USED;

void
timed_wait_read_environment(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    const char *value = getenv("PYEPOLL_NO_PWAIT2");
    if (!atomic_flag_test_and_set(&done) && value != NULL && value[0] != '\0' && strcmp(value, "0") != 0) {
        timed_wait_use_pwait2(false);
    }
}

bool
timed_wait_use_pwait2(bool use)
{
    return atomic_exchange(&pwait2, use ? PWAIT2_USED : PWAIT2_SWITCHED_OFF) == PWAIT2_USED;
}

bool
timed_wait_uses_pwait2(void)
{
    return atomic_load_explicit(&pwait2, memory_order_relaxed) == PWAIT2_USED;
}

bool
timed_wait_switched_off_pwait2(void)
{
    return atomic_load_explicit(&pwait2, memory_order_relaxed) == PWAIT2_SWITCHED_OFF;
}

/* For epoll_wait: rounded up, and cut to INT_MAX; the caller waits again for the rest. */
static int
milliseconds(int64_t nanoseconds)
{
    if (nanoseconds <= 0) {
        return (int)nanoseconds; /* 0, or -1 for no timeout */
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

int
timed_wait(int epfd, struct epoll_event *events, int maxevents, int64_t timeout, const sigset_t *set)
{
    if (timeout <= 0 || !timed_wait_uses_pwait2()) {
        return wait_milliseconds(epfd, events, maxevents, timeout, set);
    }
    int count = sys_epoll_pwait2(epfd, events, maxevents, timeout, set);
    int error = errno;
    if (count >= 0 || error == EINTR || error == EBADF) {
        return count;
    }
    /* Before Linux 5.11 there is no such call, and a sandbox that does not know it may answer with any errno:
     * ENOSYS, EPERM, EACCES, EINVAL. The error is the epoll's own only if the older call fails with the same
     * one. */
    count = wait_milliseconds(epfd, events, maxevents, timeout, set);
    if (count >= 0 || errno != error) {
        int used = PWAIT2_USED; /* the program may have switched it off meanwhile */
        atomic_compare_exchange_strong(&pwait2, &used, PWAIT2_REFUSED);
    }
    return count;
}
