#include "core/front.h"

#include "core/change.h"
#include "core/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int
front_watch(int front_fd, uint32_t base_generation, int epfd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = identity_front_data(base_generation)};
    return epoll_ctl(front_fd, EPOLL_CTL_ADD, epfd, &event) < 0 ? errno : 0;
}

int
front_new(uint32_t base_generation, int epfd)
{
    int front_fd = epoll_create1(EPOLL_CLOEXEC);
    int error = front_fd >= 0 ? front_watch(front_fd, base_generation, epfd) : 0;
    if (error != 0) {
        close(front_fd);
        errno = error;
        front_fd = -1;
    }
    return front_fd;
}

void
front_unwatch(int front_fd, int epfd)
{
    epoll_ctl(front_fd, EPOLL_CTL_DEL, epfd, &(struct epoll_event){0});
}

int
front_take_fd(int source, int target)
{
    int flags = fcntl(target, F_GETFD);
    bool inheritable = flags >= 0 && (flags & FD_CLOEXEC) == 0;
    int error = dup3(source, target, inheritable ? 0 : O_CLOEXEC) < 0 ? errno : 0;
    close(source);
    return error;
}

/* Move the instance to another fd and put a new front under its old one. 0 and the new fd, or an errno. */
static int
swap_fds(const Instance *self, int *epfd)
{
    enum { FIRST_FD = 3 }; /* not one of the standard streams */
    *epfd = fcntl(self->fds.epfd, F_DUPFD_CLOEXEC, FIRST_FD);
    if (*epfd < 0) {
        return errno;
    }
    int front_fd = front_new(self->generations.base, *epfd);
    int error = front_fd >= 0 ? front_take_fd(front_fd, self->fds.epfd) : errno;
    if (error != 0) {
        close(*epfd);
    }
    return error;
}

int
front_open(Instance *self)
{
    int error = 0;
    change_lock(self);
    if (self->fds.front < 0 && instance_begin_fd_change(self)) {
        int epfd;
        Py_BEGIN_ALLOW_THREADS
        fork_hold();
        error = swap_fds(self, &epfd);
        if (error == 0) {
            self->fds.front = self->fds.epfd;
            self->fds.epfd = epfd;
        }
        fork_release();
        Py_END_ALLOW_THREADS
        instance_end_fd_change(self);
    }
    mutex_unlock(&self->locks.ctl);
    return error;
}
