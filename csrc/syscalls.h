/* epoll_pwait2, which libc has only since glibc 2.35, Linux 5.11; and whether epoll_ctl may be called. The
 * errno is the caller's to judge. */
#ifndef PYEPOLL_SYSCALLS_H
#define PYEPOLL_SYSCALLS_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Since Linux 5.1 a new system call has the same number on all architectures that CPython runs on. */
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/* 0, or the errno with which a sandbox answers every epoll_ctl. The kernel's own answer is EINVAL: an epoll
 * cannot watch itself. */
static inline int
sys_epoll_ctl_denied(int epfd)
{
    struct epoll_event event = {0};
    return epoll_ctl(epfd, EPOLL_CTL_ADD, epfd, &event) == 0 || errno == EINVAL ? 0 : errno;
}

/* `timeout` in nanoseconds, -1 for ever. `set` may be NULL. */
static inline int
sys_epoll_pwait2(int epfd, struct epoll_event *events, int maxevents, int64_t timeout, const sigset_t *set)
{
    /* The kernel's struct __kernel_timespec, whatever time_t the C library was built with. */
    struct {
        int64_t seconds;
        int64_t nanoseconds;
    } span = {timeout / 1000000000, timeout % 1000000000};
    /* The kernel's sigset_t is one bit a signal; the C library's may be larger. */
    return (int)syscall(SYS_epoll_pwait2, epfd, events, maxevents, timeout != -1 ? &span : NULL, set,
                        (size_t)(_NSIG / 8));
}

#endif
