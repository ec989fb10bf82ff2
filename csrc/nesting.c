#include "nesting.h"

#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct {
    int inner;
    Watched watched;
    bool found;
} Search;

static bool
find_inner(const Watched *watched, void *arg)
{
    Search *search = arg;
    search->found = watched->fd == search->inner;
    search->watched = *watched;
    return !search->found;
}

/* Enter the Epoll under the number `outer`, if there is one. False if it must be left alone: a copy that a
 * fork has made and nobody used yet is still the parent's instance, and so is, for an orphan, every epoll
 * that we know nothing of. */
static bool
enter_outer(Instance *self, int outer, bool orphan, Instance **known)
{
    *known = instance_find(self->module, outer);
    PyErr_Clear();
    if (*known == NULL) {
        return !orphan;
    }
    STATE_LOCK(*known);
    bool usable = (*known)->standing == OPEN && (*known)->forks == fork_count;
    STATE_UNLOCK(*known);
    return usable && instance_enter(*known) == 0;
}

/* Write down that `outer` watches `self`, and let go of it. False if it does not, or there is no memory. */
static bool
detach(Instance *self, Nestings *nestings, int outer, Instance *known)
{
    Search search = {.inner = self->epfd};
    int error = fdinfo_each(outer, find_inner, &search);
    if (error != 0 && fcntl(outer, F_GETFD) >= 0) {
        nestings->error = error;
    }
    if (!search.found) {
        return false;
    }
    Nesting *items = realloc(nestings->items, (size_t)(nestings->count + 1) * sizeof(*items));
    if (items == NULL) {
        nestings->error = ENOMEM;
        return false;
    }
    nestings->items = items;
    /* A refusal means that it is a ghost's entry, under our number by chance. */
    if (epoll_ctl(outer, EPOLL_CTL_DEL, self->epfd, &(struct epoll_event){0}) != 0) {
        return false;
    }
    items[nestings->count++] = (Nesting){outer, known, search.watched};
    return true;
}

/* To take out what cannot be in it says ENOENT if it is an epoll, and something else if not. It is much
 * cheaper than a readlink, of which a long list would cost as much as the rest of a cure. */
static bool
is_epoll(int fd, int probe)
{
    return epoll_ctl(fd, EPOLL_CTL_DEL, probe, &(struct epoll_event){0}) != 0 && errno == ENOENT;
}

Nestings
nesting_detach(Instance *self, bool orphan)
{
    int size = fdinfo_table_size();
    Nestings nestings = {.error = size < 0 && errno != ENOENT ? errno : 0};
    int probe = nestings.error == 0 ? epoll_create1(EPOLL_CLOEXEC) : -1;
    if (nestings.error == 0 && probe < 0) {
        nestings.error = errno;
    }
    for (int outer = 0; outer < size && nestings.error == 0; outer++) {
        if (outer == self->epfd || !is_epoll(outer, probe)) {
            continue;
        }
        Instance *known;
        bool entered = enter_outer(self, outer, orphan, &known);
        if (!entered || !detach(self, &nestings, outer, known)) {
            if (entered && known != NULL) {
                instance_leave(known);
            }
            Py_XDECREF(known);
        }
    }
    if (probe >= 0) {
        close(probe);
    }
    return nestings;
}

void
nesting_attach(const Instance *self, Nestings *nestings)
{
    for (int i = 0; i < nestings->count; i++) {
        const Nesting *item = &nestings->items[i];
        struct epoll_event event = {.events = item->watched.events, .data.u64 = item->watched.word};
        epoll_ctl(item->outer, EPOLL_CTL_ADD, self->epfd, &event);
        if (item->known != NULL) {
            instance_leave(item->known);
        }
    }
}

void
nesting_release(Nestings *nestings)
{
    for (int i = 0; i < nestings->count; i++) {
        Py_XDECREF(nestings->items[i].known);
    }
    free(nestings->items);
}
