#include "core/stand_in.h"

#include "base/compat.h"
#include "base/fdinfo.h"

#include <fcntl.h>
#include <sys/eventfd.h>

int
stand_in_reserve(StandIns *table)
{
    if (table->count < table->capacity) {
        return 0;
    }
    int capacity = table->capacity > 0 ? table->capacity * 2 : 4;
    StandIn *items = PyMem_Realloc(table->items, (size_t)capacity * sizeof(StandIn));
    if (items == NULL) {
        return -1;
    }
    table->items = items;
    table->capacity = capacity;
    return 0;
}

void
stand_in_append(StandIns *table, StandIn item)
{
    table->items[table->count++] = item;
}

int
stand_in_index(const StandIns *table, int fd)
{
    int index = table->count - 1;
    while (index >= 0 && table->items[index].fd != fd) {
        index--;
    }
    return index;
}

StandIn
stand_in_take(StandIns *table, int index)
{
    StandIn item = table->items[index];
    table->count--;
    for (int i = index; i < table->count; i++) {
        table->items[i] = table->items[i + 1];
    }
    return item;
}

int
stand_in_index_of_eventfd(const StandIns *table, int fd)
{
    int index = table->count - 1;
    while (index >= 0 && table->items[index].eventfd != fd) {
        index--;
    }
    return index;
}

/* "epol" and the fd that it stands in for. */
static uint64_t
count_for(int fd)
{
    enum { STANDS_IN = 0x65706f6c };
    return (uint64_t)STANDS_IN << 32 | (uint32_t)fd;
}

int
stand_in_eventfd(int fd)
{
    uint64_t count = count_for(fd);
    int made = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made >= 0 && write(made, &count, sizeof(count)) != sizeof(count)) {
        int error = errno;
        close(made);
        errno = error;
        return -1;
    }
    return made;
}

void
stand_in_close(const StandIn *item, int epfd)
{
    /* The kernel removes an entry only where the fd still refers to the file of it. */
    bool removed = epfd >= 0 && epoll_ctl(epfd, EPOLL_CTL_DEL, item->eventfd, &(struct epoll_event){0}) == 0;
    if (removed || stand_in_has_eventfd(item, false)) {
        close(item->eventfd);
    }
}

void
stand_in_close_all(StandIns *table, int epfd)
{
    StandIns old = *table;
    *table = (StandIns){0};
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < old.count; i++) {
        stand_in_close(&old.items[i], epfd);
    }
    Py_END_ALLOW_THREADS
    PyMem_Free(old.items);
}

bool
stand_in_is_current(const StandIn *item)
{
    FileId now = sys_file_id(item->fd);
    if (!now.known || !item->file.known) {
        return fcntl(item->fd, F_GETFD) >= 0;
    }
    return now.device == item->file.device && now.inode == item->file.inode;
}

bool
stand_in_has_eventfd(const StandIn *item, bool unknown)
{
    return fdinfo_is_eventfd(item->eventfd, count_for(item->fd), unknown);
}

uint32_t
stand_in_mask(uint32_t mask)
{
    return mask | ((mask & EPOLLRDNORM) != 0 ? EPOLLIN : 0u) | ((mask & EPOLLWRNORM) != 0 ? EPOLLOUT : 0u);
}

uint32_t
stand_in_events(uint32_t mask, uint32_t events)
{
    uint32_t all = events | ((events & EPOLLIN) != 0 ? EPOLLRDNORM : 0u) |
                   ((events & EPOLLOUT) != 0 ? EPOLLWRNORM : 0u);
    /* An event that was fetched before modify() may have nothing of the new mask. */
    return (all & mask) != 0 ? all & mask : events;
}
