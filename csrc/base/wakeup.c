#include "base/wakeup.h"

#include "base/compat.h"
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

uint32_t
wakeup_kept_mask(uint32_t mask)
{
    bool kept = true;
    if ((mask & EPOLLWAKEUP) != 0) {
        Py_BEGIN_ALLOW_THREADS
        kept = wakeup_is_kept();
        Py_END_ALLOW_THREADS
    }
    return kept ? mask : mask & ~(uint32_t)EPOLLWAKEUP;
}
