#include "core/stand_in.h"

#include "base/compat.h"
#include "base/fdinfo.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>

int
stand_in_reserve(StandIns *table, int eventfd)
{
    if (eventfd / 8 >= table->bytes) {
        int bytes = Py_MAX(eventfd / 8 + 1, table->bytes * 2);
        uint8_t *eventfds = PyMem_Realloc(table->eventfds, (size_t)bytes);
        if (eventfds == NULL) {
            return -1;
        }
        memset(eventfds + table->bytes, 0, (size_t)(bytes - table->bytes));
        table->eventfds = eventfds;
        table->bytes = bytes;
    }
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

/* How many have this fd or a lower one. */
static int
count_up_to(const StandIns *table, int fd)
{
    int low = 0, high = table->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (table->items[middle].fd <= fd) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

static void
clear_bit(StandIns *table, int eventfd)
{
    if (eventfd >= 0) {
        table->eventfds[eventfd / 8] &= (uint8_t)~(1 << eventfd % 8);
    }
}

void
stand_in_insert(StandIns *table, StandIn item)
{
    StandIn *place = &table->items[count_up_to(table, item.fd)];
    int closed = stand_in_index_of_eventfd(table, item.eventfd);
    if (closed >= 0) {
        stand_in_forget_eventfd(table, closed); /* or the new one could not have its fd */
    }
    memmove(place + 1, place, (size_t)(&table->items[table->count] - place) * sizeof(StandIn));
    *place = item;
    table->count++;
    table->eventfds[item.eventfd / 8] |= (uint8_t)(1 << item.eventfd % 8);
}

int
stand_in_index(const StandIns *table, int fd)
{
    int index = count_up_to(table, fd) - 1;
    return index >= 0 && table->items[index].fd == fd ? index : -1;
}

StandIn
stand_in_take(StandIns *table, int index)
{
    StandIn *place = &table->items[index];
    StandIn item = *place;
    table->count--;
    memmove(place, place + 1, (size_t)(&table->items[table->count] - place) * sizeof(StandIn));
    clear_bit(table, item.eventfd);
    return item;
}

void
stand_in_forget_eventfd(StandIns *table, int index)
{
    clear_bit(table, table->items[index].eventfd);
    table->items[index].eventfd = -1;
}

int
stand_in_index_of_eventfd(const StandIns *table, int fd)
{
    bool possible = fd >= 0 && fd / 8 < table->bytes && (table->eventfds[fd / 8] & 1 << fd % 8) != 0;
    int index = possible ? table->count - 1 : -1;
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
    PyMem_Free(old.eventfds);
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
