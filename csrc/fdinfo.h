/* What /proc/self tells of fds: the kernel's own view. Plain C, for use without the GIL. */
#ifndef PYEPOLL_FDINFO_H
#define PYEPOLL_FDINFO_H

#include <stdbool.h>
#include <stdint.h>

/* One entry of an epoll's list. A spent one-shot shows none but its private bits in `events`. */
typedef struct {
    int fd;
    uint32_t events;
    uint64_t word;
} Watched;

/* Call `see` for each entry of the epoll `epfd` until it returns false. 0, or an errno where the
 * file cannot be read; a file that is no epoll has no entries. */
int fdinfo_each(int epfd, bool (*see)(const Watched *watched, void *arg), void *arg);

/* Whether `fd` is an epoll, as /proc/self/fd names it: 0 if so, EINVAL if not, EBADF where it is not open,
 * another errno where that cannot be seen. */
int fdinfo_is_epoll(int fd);

/* Whether `fd` is an eventfd with this count, or may be: it is open and cannot be looked at, which takes
 * an fd and /proc. */
bool fdinfo_may_be_eventfd(int fd, uint64_t count);

/* How many numbers the table of fds has, open or not; -1 and errno where that cannot be told. */
int fdinfo_table_size(void);

#endif
