/*
 * The interest list: the registrations of an instance, by fd. Plain data with its own operations; nothing
 * here makes a system call or takes a lock.
 *
 * The kernel's list is keyed by (fd, open file description). It looks the file up by fd at each epoll_ctl,
 * and drops an entry only when the last duplicate of the file has been closed, in every process. So closing a
 * registered fd whose file has a duplicate leaves a stale registration: an entry that goes on reporting and
 * that no epoll_ctl can name. The fd may meanwhile belong to another file and be registered again. The
 * generation tells the two apart: each registration has its own, the kernel carries it in the epoll data, and
 * an event whose generation is not that of the fd's present registration is stale.
 */
#ifndef PYEPOLL_INTEREST_H
#define PYEPOLL_INTEREST_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t generation;    /* 0: nothing is registered under this fd */
    uint32_t mask;          /* as the kernel was asked */
    uint32_t reported;      /* the events in `pair`; 0, which no event has, when there is none */
    uint16_t countdown;     /* events until the fd is checked to be open */
    uint8_t interval;       /* the next countdown, as a power of 2 */
    bool disarmed : 1;      /* fired before a rebuild, which could not quite disarm the new entry */
    bool rearm_pending : 1; /* in a forked copy: its event was fetched before the fork, and given back */
    bool shadowed : 1;      /* the kernel may have an older entry under this fd; also of an empty slot */
    bool always_ready : 1;  /* a stand-in reports for it: stand_in.h */
    bool changing : 1;      /* a change in place is under way: in_place.h */
    PyObject *data;         /* owned */
    PyObject *pair;         /* owned: the (data, events) that was yielded last, or NULL */
    /* Times of the instance's clock. */
    uint64_t changed;     /* when the clock counted the last change as complete; also of an empty slot */
    uint64_t disarmed_at; /* a wait that began before may have fetched the event that fired it */
#ifdef Py_GIL_DISABLED
    char unused[16]; /* to the size of a cache line: other threads change the registrations of other fds */
#endif
} Registration;

#ifdef Py_GIL_DISABLED
_Static_assert(sizeof(void *) < 8 || sizeof(Registration) == 64, "a registration fills a cache line");
#endif

/* Whether the fd is open is checked at event 8, 16, 32, … 1024, and every 1024th after that. */
enum { INTEREST_FIRST_CHECK = 3, INTEREST_LAST_CHECK = 10 };

enum { INTEREST_PAGE = 256 };

/* Slots come in pages that never move: a high fd costs one page, not an array up to it. */
typedef struct {
    Registration **pages; /* by fd / INTEREST_PAGE; NULL where none of its numbers was registered */
    int page_count;
    int count; /* registrations */
} InterestList;

/* The epoll data of a registration, and the parts of it. */
static inline uint64_t
epoll_data_of(int fd, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)fd;
}

static inline int
epoll_data_fd(uint64_t epoll_data)
{
    return (int)(uint32_t)epoll_data;
}

static inline uint32_t
epoll_data_generation(uint64_t epoll_data)
{
    return (uint32_t)(epoll_data >> 32);
}

/* The slot of `fd`, which may hold no registration; NULL where there is no slot yet. */
static inline Registration *
interest_slot(const InterestList *list, int fd)
{
    int page = (int)((unsigned)fd / INTEREST_PAGE);
    if (page >= list->page_count || list->pages[page] == NULL) {
        return NULL;
    }
    return &list->pages[page][(unsigned)fd % INTEREST_PAGE];
}

/* The registration that has this epoll data; NULL if it has been removed or replaced. */
static inline Registration *
interest_find(const InterestList *list, uint64_t epoll_data)
{
    Registration *slot = interest_slot(list, epoll_data_fd(epoll_data));
    bool live = slot != NULL && slot->generation != 0 &&
                slot->generation == epoll_data_generation(epoll_data);
    return live ? slot : NULL;
}

/* Whether an event of a wait that began at `started` must be dropped because its one-shot is disarmed. */
static inline bool
interest_is_disarmed(const Registration *registration, uint64_t started)
{
    return registration->disarmed && started >= registration->disarmed_at;
}

/* The registration of `fd`, or NULL. */
static inline Registration *
interest_get(const InterestList *list, int fd)
{
    Registration *slot = interest_slot(list, fd);
    return slot != NULL && slot->generation != 0 ? slot : NULL;
}

/* Make a slot for `fd` >= 0. 0, or -1 (no exception set) when there is no memory. */
int interest_ensure_slot(InterestList *list, int fd);

/* A registration as it starts out; it takes over the reference to `data`. */
Registration registration_new(uint32_t generation, uint32_t mask, PyObject *data);

/* Put `now` into the slot of `fd`, which must exist. Ownership of the earlier registration passes to the
 * caller. */
static inline Registration
interest_put(InterestList *list, int fd, Registration now)
{
    Registration *slot = interest_slot(list, fd);
    Registration before = *slot;
    list->count += (now.generation != 0) - (before.generation != 0);
    *slot = now;
    return before;
}

/* Drop the references of a registration that is in no list. Python code may run. */
static inline void
registration_release(Registration *registration)
{
    Py_CLEAR(registration->pair);
    Py_CLEAR(registration->data);
}

/* The lowest registered fd >= `from`, or -1. */
int interest_next(const InterestList *list, int from);

/* The kernel instance is a new one. It has no older entries; and no change in place is under way, whatever
 * was in the process from which a forked copy comes. */
void interest_renew(InterestList *list);

/* Free everything; references are dropped, so Python code may run. */
void interest_free(InterestList *list);

int interest_traverse(const InterestList *list, visitproc visit, void *arg);

#endif
