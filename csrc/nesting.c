#include "nesting.h"

#include "fork.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Nestings *found;
    int outer;
    int inner;
} Search;

static bool
add_if_inner(const Watched *watched, void *arg)
{
    Search *search = arg;
    Nestings *found = search->found;
    if (watched->fd != search->inner) {
        return true;
    }
    Nesting *items = realloc(found->items, (size_t)(found->count + 1) * sizeof(*items));
    if (items == NULL) {
        return false;
    }
    items[found->count++] = (Nesting){search->outer, *watched};
    found->items = items;
    return true;
}

/* A copy that a fork has made and nobody used yet is still the parent's instance, and so is, in a
 * child, every epoll that we know nothing of. */
static bool
is_of_this_process(Instance *self, int outer, bool orphan)
{
    Instance *known = instance_find(self->module, outer);
    bool result = known != NULL ? known->forks == fork_count && known->standing == OPEN : !orphan;
    PyErr_Clear();
    Py_XDECREF(known);
    return result;
}

Nestings
nesting_detach(Instance *self, bool orphan)
{
    Nestings found = {0};
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        int outer = entry->d_name[0] != '.' ? atoi(entry->d_name) : -1;
        if (outer >= 0 && outer != self->epfd && fdinfo_is_epoll(outer) &&
            is_of_this_process(self, outer, orphan)) {
            Search search = {&found, outer, self->epfd};
            fdinfo_each(outer, add_if_inner, &search);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    int kept = 0;
    for (int i = 0; i < found.count; i++) {
        /* A refusal means that it is a ghost's entry, under our number by chance. */
        if (epoll_ctl(found.items[i].outer, EPOLL_CTL_DEL, self->epfd, &(struct epoll_event){0}) == 0) {
            found.items[kept++] = found.items[i];
        }
    }
    found.count = kept;
    return found;
}

void
nesting_attach(const Instance *self, Nestings *nestings)
{
    for (int i = 0; i < nestings->count; i++) {
        const Nesting *item = &nestings->items[i];
        struct epoll_event event = {.events = item->watched.events, .data.u64 = item->watched.word};
        epoll_ctl(item->outer, EPOLL_CTL_ADD, self->epfd, &event);
    }
    free(nestings->items);
}
