/* System calls that the C library may lack: epoll_pwait2 (in glibc since 2.35; Linux 5.11), kcmp, statx (in
 * glibc since 2.28; Linux 4.11) and those on pidfds; and whether epoll_ctl is allowed. The caller interprets
 * the errno. */
#ifndef PYEPOLL_SYSCALLS_H
#define PYEPOLL_SYSCALLS_H

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Since Linux 5.1 a new system call has the same number on all architectures that CPython runs on. */
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

/* A pidfd of the process `pid`, close-on-exec; -1 and errno. Since Linux 5.3. */
static inline int
sys_pidfd_open(int pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0U);
}

/* Since Linux 5.1. */
static inline int
sys_pidfd_send_signal(int pidfd, int number)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0U);
}

/* The calling thread, for calls that name a process by it: a thread may have an fd table of its own. */
static inline int
sys_gettid(void)
{
    return (int)syscall(SYS_gettid);
}

/* Whether the file that an epoll watches under the fd `tfd` is the file of a process's `fd`: 0 if so, above 0
 * if not; below 0 and errno where that is unknown. An fd can be there more than once: `nth` counts from 0, in
 * the order of fdinfo. The kernel walks through the whole interest list, and waits for changes to it that are
 * under way. Since Linux 4.13, with CONFIG_KCMP. */
static inline long
sys_kcmp_watched(int epoll_pid, int epfd, int tfd, int nth, int pid, int fd)
{
    enum { KCMP_EPOLL_TFD = 7 }; /* of linux/kcmp.h, which not every C library's headers come with */
    struct {
        uint32_t epfd;
        uint32_t tfd;
        uint32_t nth;
    } slot = {(uint32_t)epfd, (uint32_t)tfd, (uint32_t)nth};
    return syscall(SYS_kcmp, pid, epoll_pid, KCMP_EPOLL_TFD, (unsigned long)(unsigned)fd,
                   (unsigned long)(uintptr_t)&slot);
}

/* Whether two fds of the calling thread are duplicates of each other; false where that is unknown. */
static inline bool
sys_same_file(int fd, int other)
{
    enum { KCMP_FILE = 0 };
    int thread = sys_gettid();
    return syscall(SYS_kcmp, thread, thread, KCMP_FILE, (unsigned long)(unsigned)fd,
                   (unsigned long)(unsigned)other) == 0;
}

/* Whether another thread of this process shares the calling thread's fd table; true where that is unknown. A
 * thread that has ended is: another process may have its number. */
static inline bool
sys_may_share_fds(int other)
{
    enum { KCMP_FILES = 2 };
    return syscall(SYS_kcmp, sys_gettid(), other, KCMP_FILES, 0UL, 0UL) <= 0 ||
           syscall(SYS_tgkill, getpid(), other, 0) < 0;
}

/* 0, or the errno with which a sandbox answers every epoll_ctl. The kernel itself answers EINVAL: an epoll
 * cannot watch itself. */
static inline int
sys_epoll_ctl_denied(int epfd)
{
    struct epoll_event event = {0};
    return epoll_ctl(epfd, EPOLL_CTL_ADD, epfd, &event) == 0 || errno == EINVAL ? 0 : errno;
}

/* A file, as far as its inode tells: two open file descriptions of one file have the same. */
typedef struct {
    uint64_t device, inode;
    uint16_t mode; /* its type, S_IFMT; 0 for an eventfd, a timerfd and the like */
    bool known;
} FileId;

/* The file of an fd; not known where the system call is missing or forbidden. Asks no server of a network
 * file system. */
static inline FileId
sys_file_id(int fd)
{
    FileId id = {0};
#ifdef SYS_statx
    enum { STATX_TYPE_BIT = 1, STATX_INO_BIT = 0x100, EMPTY_PATH = 0x1000, DONT_SYNC = 0x4000 };
    /* struct statx of linux/stat.h, which is 256 bytes. */
    struct {
        uint32_t mask, before_mode[6];
        uint16_t mode, spare;
        uint64_t inode;
        uint32_t before_device[24], device_major, device_minor, rest[28];
    } found;
    if (syscall(SYS_statx, fd, "", EMPTY_PATH | DONT_SYNC, STATX_TYPE_BIT | STATX_INO_BIT, &found) == 0) {
        id.known = (found.mask & STATX_INO_BIT) != 0;
        id.mode = found.mode & S_IFMT;
        id.device = (uint64_t)found.device_major << 32 | found.device_minor;
        id.inode = found.inode;
    }
#else
    (void)fd;
#endif
    return id;
}

/* `timeout` in nanoseconds, -1 for none. `set` may be NULL. */
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
