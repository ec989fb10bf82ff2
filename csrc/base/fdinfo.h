/* The kernel's own view of the calling thread's fds, from /proc. Plain C, for use without the GIL. A thread
 * may have an fd table of its own (unshare(CLONE_FILES)), so /proc/self is never read. */
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
 * unknown: the file cannot be read, or ENODATA: it shows no entries although the epoll has some (`expected`),
 * as in a sandbox that imitates /proc. */
int fdinfo_each(int epfd, bool expected, bool (*see)(const KernelEntry *entry, void *arg), void *arg);

/* Whether `fd` is an epoll according to /proc: 0 if so, EINVAL if not, EBADF where it is not open, another
 * errno where that is unknown. */
int fdinfo_is_epoll(int fd);

/* The same for an eventfd. */
int fdinfo_is_any_eventfd(int fd);

/* Whether `fd` is an eventfd with this count; `unknown` where its fdinfo cannot be read, which takes an fd
 * and /proc. */
bool fdinfo_is_eventfd(int fd, uint64_t count, bool unknown);

#endif
