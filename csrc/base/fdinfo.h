/* What /proc says of the calling thread's fds: the kernel's own view. Plain C, for use without the GIL. A
 * thread may have an fd table of its own (unshare(CLONE_FILES)), so it is never /proc/self that is read. */
#ifndef PYEPOLL_FDINFO_H
#define PYEPOLL_FDINFO_H

#include <stdbool.h>
#include <stdint.h>

/* One entry of an epoll's interest list. A disarmed one-shot has only its private bits in `events`. */
typedef struct {
    int fd;
    uint32_t events;
    uint64_t data;
} KernelEntry;

/* Call `see` for each entry of the epoll `epfd` until it returns false. 0, or an errno where the list is
 * unknown: the file cannot be read, or ENODATA: it shows no entries though the epoll has some, as in a
 * sandbox that imitates /proc. Whether the epoll must have entries, `expected` says. */
int fdinfo_each(int epfd, bool expected, bool (*see)(const KernelEntry *entry, void *arg), void *arg);

/* Whether `fd` is an epoll, as /proc names it: 0 if so, EINVAL if not, EBADF where it is not open, another
 * errno where that cannot be seen. */
int fdinfo_is_epoll(int fd);

/* Whether `fd` is an eventfd with this count, or may be: it is open and cannot be looked at, which takes
 * an fd and /proc. */
bool fdinfo_may_be_eventfd(int fd, uint64_t count);

#endif
