/*
 * The table of a LoopSelector: by fd, which handles or data wait for which events, and how much of that the
 * kernel has been asked for. Plain data with its own operations: nothing here makes a system call that
 * changes anything. fdchange.h decides what the kernel is asked for, and when.
 *
 * The core has the registrations (core/instance.h): their data are the FdEntry objects, so events lead to
 * them. Generations, stale events and rebuilds are the core's business.
 */
#ifndef PYEPOLL_FDTABLE_H
#define PYEPOLL_FDTABLE_H

#include "aio/counters.h"
#include "aio/state.h"
#include "base/mutex.h"
#include "core/instance.h"
#include "selector/selector_key.h"

#include <stdint.h>

extern PyType_Spec fdentry_spec; /* fdentry.c */

enum { READER, WRITER, DIRECTIONS };

/* One fd. Everything but `fd` is guarded. */
typedef struct {
    PyObject_HEAD
    int fd;
    uint8_t wanted;      /* EVENT_READ | EVENT_WRITE; 0: removed, which the kernel may not know yet */
    uint8_t present;     /* the events that the kernel has been asked for; 0: it has no entry */
    bool queued;         /* the next flush compares the two */
    unsigned operations; /* begun: fdchange.c */
    unsigned users;      /* calls of fdchange.c that work on it: until they end, it stays in the table */
    PyObject *fileobj;   /* as it was registered; NULL while `wanted` is 0 */
    PyObject *sock;      /* a weak reference to the socket that the kernel's entry was made for, or NULL */
    PyObject *handles[DIRECTIONS]; /* each may be NULL */
    PyObject *data;                /* as register() or modify() got it; NULL: the pair of the handles */
    PyObject *key;                 /* the SelectorKey for all this, once it has been asked for */
} FdEntry;

typedef struct {
    PyObject_HEAD
    ModuleState *module; /* with a reference: base/module_state.h */
    PyObject *epoll;     /* the Epoll with the registrations; NULL until __init__() */
    Instance *instance;  /* its */
    unsigned epoch;      /* fork_epoch() of the process that it belongs to */
    int waiting;         /* threads that wait, or are about to */
    struct {
        FdEntry **items; /* by fd: no larger than the kernel's own table of this process */
        int size;
        int count; /* with `wanted` */
    } table;
    struct {
        int *fds; /* of queued entries */
        int count;
        int capacity;
    } changes;
    struct {
        Counter events;
        Counter idle; /* nanoseconds of waits */
    } selected;       /* by calls of select(); count_stock_turn() takes them */
    Guard guard;
} LoopSelector;

/* The change that a caller wants. */
typedef struct {
    int fd;
    bool closed;       /* the file object is: the fd is the one under which it is watched */
    PyObject *fileobj; /* as the caller gave it */
    uint8_t events;    /* one event to add or remove; with `data`, all of them */
    PyObject *handle;  /* for the one event */
    PyObject *data;    /* of register() and modify(), in place of the handles; else NULL */
    /* Result: the handles that are not watched any more, new references; both where the file is another. */
    PyObject *dropped[DIRECTIONS];
} FdUpdate;

/* References that are to be dropped once the guard is released: Python code may run then. */
typedef struct {
    PyObject *items[8];
    int count;
} Garbage;

/* Take over a reference, and clear it. */
static inline void
garbage_add(Garbage *garbage, PyObject **reference)
{
    if (*reference != NULL) {
        garbage->items[garbage->count++] = *reference;
        *reference = NULL;
    }
}

void garbage_release(Garbage *garbage);

/* The epoll mask for events of selectors. */
static inline uint32_t
fdtable_mask(uint8_t events)
{
    return ((events & EVENT_READ) != 0 ? EPOLLIN : 0u) | ((events & EVENT_WRITE) != 0 ? EPOLLOUT : 0u);
}

/* 0; or -1 with AttributeError before __init__(), RuntimeError in a child of the process that the selector
 * belongs to. */
int fdtable_check(const LoopSelector *self);

/* The entry of a watched fd: a new reference, or NULL. */
FdEntry *fdtable_find(LoopSelector *self, int fd);

/* The fd under which the very object is watched, or -1. */
int fdtable_find_object(LoopSelector *self, const PyObject *fileobj);

/* The entry of an fd, made if there is none, for a call that ends with fdtable_leave(); NULL with an
 * exception. An fd that is not open gets no place in the table, however large it is. */
FdEntry *fdtable_ensure(LoopSelector *self, const FdUpdate *update);

/* The entry of a watched fd, for a call that ends with fdtable_leave(); or NULL. */
FdEntry *fdtable_enter(LoopSelector *self, int fd);

/* A call on the entry ends; takes over its reference. If nothing is left of the entry, and this was the last
 * call, it leaves the table. */
void fdtable_leave(LoopSelector *self, FdEntry *entry);

/* Whether the kernel's entry was made for the very socket of the update, which is open. */
bool fdtable_is_known(LoopSelector *self, FdEntry *entry, const FdUpdate *update);

/* Whether the socket that the kernel's entry was made for is still open. */
bool fdtable_has_socket(LoopSelector *self, FdEntry *entry);

/* The rest is called with the guard. */

/* The entry of an fd, watched or not. Borrowed, or NULL. */
static inline FdEntry *
fdtable_slot(const LoopSelector *self, int fd)
{
    return fd >= 0 && fd < self->table.size ? self->table.items[fd] : NULL;
}

/* A call on the entry begins: a new reference. */
static inline FdEntry *
fdtable_use(FdEntry *entry)
{
    entry->users++;
    return (FdEntry *)Py_NewRef(entry);
}

/* Let the next flush look at the entry. False where there is no memory. */
bool fdtable_queue(LoopSelector *self, FdEntry *entry);

/* The events that are watched. */
void fdtable_set_wanted(LoopSelector *self, FdEntry *entry, uint8_t events);

/* Give up the file of the entry. Its handles go to `dropped`. */
void fdtable_forget(LoopSelector *self, FdEntry *entry, FdUpdate *update, Garbage *garbage);

/* Do what the update asks for. `sock`, a weak reference or NULL, is taken over. */
void fdtable_install(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events, PyObject *sock,
                     Garbage *garbage);

/* Empty the table. */
void fdtable_free(LoopSelector *self);

#endif
