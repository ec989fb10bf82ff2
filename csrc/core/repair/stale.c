#include "core/repair/stale.h"

#include "base/fdinfo.h"
#include "base/syscalls.h"
#include "core/always_ready.h"
#include "core/change.h"

#include <errno.h>
#include <fcntl.h>

typedef enum { LIVE, UNSETTLED, LATE, STALE } EventClass;

/* With the state lock. */
static EventClass
classify(const Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data)
{
    const Registration *slot = interest_slot(&self->list, epoll_data_fd(epoll_data));
    if (interest_find(&self->list, epoll_data) != NULL) {
        return LIVE;
    }
    if (slot != NULL && change_is_under_way(self, slot)) {
        return UNSETTLED;
    }
    uint64_t changed = slot != NULL ? slot->changed : 0;
    return snapshot->started >= changed && snapshot->started >= self->stale.rebuilt_at ? STALE : LATE;
}

/* With the state lock. */
static void
count_class(Instance *self, EventClass class, uint64_t epoll_data)
{
    self->stats.stale_events += class == LATE || class == STALE;
    if (class == STALE && self->lifecycle.state == OPEN) {
        self->stale.found = true;
        self->stale.epoll_data = epoll_data;
    }
}

/* The entries of the always-ready eventfd and of the front; the latter reports to a wait that began before
 * there was a front. */
static bool
is_internal(const Instance *self, uint64_t epoll_data)
{
    return epoll_data == 0 || epoll_data_generation(epoll_data) == self->generations.base;
}

bool
stale_classify(Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data)
{
    if (is_internal(self, epoll_data)) {
        return false;
    }
    STATE_LOCK(self);
    EventClass class = classify(self, snapshot, epoll_data);
    count_class(self, class, epoll_data);
    STATE_UNLOCK(self);
    if (class != UNSETTLED || instance_enter(self) != 0) {
        return class == LIVE;
    }
    change_lock(self);
    STATE_LOCK(self);
    class = classify(self, snapshot, epoll_data);
    count_class(self, class, epoll_data);
    STATE_UNLOCK(self);
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
    return class == LIVE;
}

/* Whether the fd of an event is open, and if the file cannot be polled, still refers to it. */
static bool
is_open(Instance *self, uint64_t epoll_data)
{
    bool closed = fcntl(epoll_data_fd(epoll_data), F_GETFD) < 0 && errno == EBADF;
    return !closed && always_ready_is_current(self, epoll_data);
}

/* With the ctl lock. Ownership of the registration passes to the caller. */
static Registration
forget_closed(Instance *self, uint64_t epoll_data)
{
    Registration lost = {0};
    if (interest_find(&self->list, epoll_data) != NULL && !is_open(self, epoll_data)) {
        lost = change_forget(self, epoll_data_fd(epoll_data));
        STATE_LOCK(self);
        self->stats.lost++;
        if (!lost.always_ready) { /* a stand-in leaves no entry */
            count_class(self, STALE, epoll_data);
        }
        STATE_UNLOCK(self);
    }
    return lost;
}

bool
stale_check_open(Instance *self, uint64_t epoll_data)
{
    if (is_open(self, epoll_data) || instance_enter(self) != 0) {
        return true;
    }
    change_lock(self);
    Registration lost = forget_closed(self, epoll_data);
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
    registration_release(&lost);
    return lost.generation == 0;
}

typedef struct {
    int fd;
    uint64_t epoll_data;
    int entries; /* under the fd, so far */
    int nth;     /* the place of the one with this data among them; -1: none yet */
} NthSearch;

static bool
find_nth(const KernelEntry *entry, void *arg)
{
    NthSearch *search = arg;
    if (entry->fd == search->fd) {
        search->nth = entry->data == search->epoll_data ? search->entries : search->nth;
        search->entries++;
    }
    return search->nth < 0;
}

/* Whether a registration belongs to the file that `fd` refers to now; true if that is unknown. Without the
 * GIL. */
static bool
is_of_this_file(const Instance *self, int fd, uint32_t generation)
{
    NthSearch search = {.fd = fd, .epoll_data = epoll_data_of(fd, generation), .nth = -1};
    int thread = sys_gettid();
    return fdinfo_each(self->fds.epfd, true, find_nth, &search) != 0 || search.nth < 0 ||
           sys_kcmp_watched(thread, self->fds.epfd, fd, search.nth, thread, fd) <= 0;
}

bool
stale_is_entry(Instance *self, int fd)
{
    const Registration *present = interest_get(&self->list, fd);
    if (self->foreign || present == NULL || present->always_ready) {
        return !self->foreign;
    }
    uint32_t generation = present->generation;
    bool stale = false;
    if (present->shadowed) {
        Py_BEGIN_ALLOW_THREADS
        stale = !is_of_this_file(self, fd, generation);
        Py_END_ALLOW_THREADS
    }
    return stale;
}
