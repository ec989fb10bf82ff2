#include "nesting.h"

#include "fork.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

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

Nestings
nesting_detach(Instance *self, bool orphan)
{
    DIR *directory = opendir("/proc/self/fd");
    Nestings nestings = {.error = directory == NULL && errno != ENOENT ? errno : 0};
    while (directory != NULL && nestings.error == 0) {
        errno = 0;
        struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            nestings.error = errno;
            break;
        }
        int outer = entry->d_name[0] != '.' ? atoi(entry->d_name) : -1;
        int error = outer < 0 || outer == self->epfd ? EINVAL : fdinfo_is_epoll(outer);
        if (error != 0) {
            nestings.error = error == EINVAL || error == EBADF ? 0 : error;
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
    if (directory != NULL) {
        closedir(directory);
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
