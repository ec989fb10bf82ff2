#include "base/wakeup.h"

#include "base/fdinfo.h"

#include <sys/epoll.h>
#include <unistd.h>

static bool
see_wakeup(const KernelEntry *entry, void *arg)
{
    *(bool *)arg = (entry->events & EPOLLWAKEUP) != 0;
    return false;
}

bool
wakeup_is_kept(void)
{
    bool kept = true;
    int watcher = epoll_create1(EPOLL_CLOEXEC);
    int watched = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLWAKEUP};
    if (watcher >= 0 && watched >= 0 && epoll_ctl(watcher, EPOLL_CTL_ADD, watched, &event) == 0) {
        fdinfo_each(watcher, true, see_wakeup, &kept);
    }
    if (watched >= 0) {
        close(watched);
    }
    if (watcher >= 0) {
        close(watcher);
    }
    return kept;
}
