/*
 * The interest list: what this process asked the kernel to watch, by fd number. Plain data with its
 * own verbs; nothing here makes a system call or takes a lock.
 *
 * The kernel keys its own list by (number, open file description), looks the file up by number at
 * each epoll_ctl, and drops an entry only when the file has gone from every process. So close() of
 * a registered number whose file lives on through dup or fork leaves an entry that keeps reporting,
 * and that no epoll_ctl can name any more: a ghost. The number may meanwhile belong to another
 * file, registered anew. What tells the two apart is the generation: each registration has its own,
 * the kernel carries it in the event's data word, and an event whose generation is not that of the
 * number's present registration is stale.
 */
#ifndef PYEPOLL_INTEREST_H
#define PYEPOLL_INTEREST_H

#include "compat.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t generation; /* 0: nothing is registered under this number */
    uint32_t mask;       /* as the kernel was asked */
    uint32_t reported;   /* the events in `pair`; 0, which no event has, when there is none */
    uint32_t changed;    /* when the kernel was last told of this registration, in changes */
    PyObject *data;      /* owned */
    PyObject *pair;      /* owned: the (data, events) that was yielded last, or NULL */
    uint16_t countdown;  /* events until the fd is checked to be open */
    uint8_t interval;    /* what the countdown starts from next, as a power of 2 */
    bool disarmed : 1;   /* a spent one-shot that a rebuilt instance could not be told is spent */
    bool owed : 1;       /* in a fork's copy: fetched before the fork, and given back since */
    uint32_t
        disarmed_at; /* in removals: a wait that began before may have fetched the event it was spent on */
} Registration;

/* Whether the fd is open is checked at event 8, 16, 32, … 1024, and every 1024th after that. */
enum { INTEREST_FIRST_CHECK = 3, INTEREST_LAST_CHECK = 10 };

enum { INTEREST_PAGE = 256 };

/* Slots come in pages that never move: a high fd number costs one page, not an array up to it. */
typedef struct {
    Registration **pages; /* by fd / INTEREST_PAGE; NULL where none of its numbers was registered */
    int page_count;
    int count; /* registrations */
} InterestList;

/* The word that the kernel carries for a registration, and what is in it. */
static inline uint64_t
interest_word(int fd, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)fd;
}

static inline int
interest_word_fd(uint64_t word)
{
    return (int)(uint32_t)word;
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

/* The registration that `word` was made for; NULL if it is gone or replaced. */
static inline Registration *
interest_find(const InterestList *list, uint64_t word)
{
    Registration *slot = interest_slot(list, interest_word_fd(word));
    return slot != NULL && slot->generation == (uint32_t)(word >> 32) && slot->generation != 0 ? slot : NULL;
}

/* Whether an event of a wait that began at `removals` is one that a spent one-shot must not report. */
static inline bool
interest_is_spent(const Registration *registration, uint32_t removals)
{
    return registration->disarmed && (int32_t)(removals - registration->disarmed_at) >= 0;
}

/* The registration of `fd`, or NULL. */
static inline Registration *
interest_get(const InterestList *list, int fd)
{
    Registration *slot = interest_slot(list, fd);
    return slot != NULL && slot->generation != 0 ? slot : NULL;
}

/* Make a slot for `fd` >= 0. 0, or -1 (no exception set) when there is no memory. */
int interest_reserve(InterestList *list, int fd);

/* A registration as it starts out; it takes over the reference to `data`. */
Registration registration_new(uint32_t generation, uint32_t mask, PyObject *data);

/* Put `now` into the slot of `fd`, which must be reserved. What was there is the caller's. */
Registration interest_put(InterestList *list, int fd, Registration now);

/* Drop the references of a registration that is in no list. Python code may run. */
void registration_release(Registration *registration);

/* The lowest registered fd >= `from`, or -1. */
int interest_next(const InterestList *list, int from);

/* Free everything; references are dropped, so Python code may run. */
void interest_free(InterestList *list);

int interest_traverse(const InterestList *list, visitproc visit, void *arg);

#endif
