/*
 * One kernel epoll instance and all that this process knows about it: the fd, the interest list, and
 * who is using it. An Epoll is a handle on an Instance; fromfd makes a second handle on the same.
 *
 * Two locks.
 * - The state lock guards every field. It is held for a few instructions, never over a system call
 *   or Python code. On a build with a GIL it is the GIL.
 * - The ctl lock makes a change to the kernel's list and to ours one step. It is held over system
 *   calls, with the GIL released, so whoever waits for it lets go of the GIL too. What the kernel
 *   may report is in our list before it is told; a refusal is taken back before the ctl lock is let
 *   go. Hence an event that fits no registration is believed to be stale only under the ctl lock.
 *
 * Users. Whoever is about to use the fd enters, and leaves when done; no Python code runs between the
 * two. close() marks the instance and wakes the waiters; whoever leaves last closes the fd. So close
 * waits for nobody, and the number cannot pass to a stranger's file under somebody's system call.
 * References to Python objects are dropped outside both locks, and outside enter and leave.
 */
#ifndef PYEPOLL_INSTANCE_H
#define PYEPOLL_INSTANCE_H

#include "fork.h"
#include "interest.h"
#include "module.h"

#include <pythread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

/* An array for one wait, kept for the next. */
typedef struct {
    int capacity;
    struct epoll_event events[];
} Array;

typedef enum {
    OPEN,
    ORPHAN,    /* a fork's copy that has no kernel instance of its own yet */
    ESTRANGED, /* a fork's copy whose fd number belongs to another file by now */
    CLOSED,
} Standing;

typedef struct {
    PyObject_HEAD
    ModuleState *module; /* with a reference to the module object: module.h */
    PyObject *weakrefs;
    int epfd;
    Standing standing;
    bool foreign;      /* others register here: their events are delivered, and it is never rebuilt */
    bool haunted;      /* a ghost reports */
    bool moving;       /* it is being rebuilt: nobody may begin to wait */
    bool finished;     /* the fd and the registrations have been given up */
    bool woken;        /* the ready eventfd is in the kernel's list until the end */
    bool draining;     /* the last waiter to leave posts `drained` */
    atomic_uint forks; /* the fork count of the process that this copy belongs to */
    int users;         /* threads between enter and leave */
    int waiters;       /* of these, the ones that wait */
    InterestList list;
    uint32_t generation; /* the last one given out */
    uint32_t first;      /* the one before the first; random, so that no stranger's words look like ours */
    uint32_t changes;    /* times that the kernel was told of a registration */
    uint32_t removals;   /* starts and ends of removals */
    uint32_t suspects;   /* registrations that left a ghost, perhaps */
    uint32_t doubts;     /* stale events since, of which it is not known whether a ghost sent them */
    uint64_t ghost;      /* the word of the last stale event */
    int hint;            /* a foreign instance: how many events a wait should have room for */
    atomic_bool selects; /* a Selector's: an event of a SelectorKey yields the events that selectors know */
    Array *spare;
    PyThread_type_lock drained; /* released by a post, acquired by a wait; so is ctl_free */
#ifdef Py_GIL_DISABLED
    PyMutex state;
    PyMutex ctl;
#else
    bool ctl_held; /* guarded by the GIL, which makes it cheaper than a mutex */
    int ctl_waiting;
    PyThread_type_lock ctl_free;
#endif
    /* What stats() tells. */
    unsigned long long waits, events, stale, cures, dropped;
} Instance;

/* Reset what means nothing in a child: the locks and marks of threads that it does not have. */
void instance_reset(Instance *self);

static inline void
instance_notice_fork(Instance *self)
{
    if (self->forks != fork_count) {
        instance_reset(self);
    }
}

#ifdef Py_GIL_DISABLED
/* In a child the lock may be a lost thread's, so it is looked at after the fork is noticed. */
#define STATE_LOCK(self) (instance_notice_fork(self), PyMutex_Lock(&(self)->state))
#define STATE_UNLOCK(self) PyMutex_Unlock(&(self)->state)
#else
#define STATE_LOCK(self) ((void)(self))
#define STATE_UNLOCK(self) ((void)(self))
#endif

/* What enter says besides 0 and, with an exception, -1. */
enum { IS_CLOSED = 1 };

/* A new reference; takes over `epfd`, and unless it is foreign closes it when that fails. */
Instance *instance_new(ModuleState *module, int epfd, bool foreign);

/* The Instance that this interpreter has under `epfd`: a new reference; NULL without an exception
 * where there is none, with one on failure. */
Instance *instance_find(ModuleState *module, int epfd);

/* Whether the word of an event was made here. Others' have other generations: ours start at random. */
static inline bool
instance_made(const Instance *self, uint64_t word)
{
    uint32_t age = (uint32_t)(word >> 32) - self->first;
    return age >= 1 && age <= self->generation - self->first;
}

/* Become a user. 0, IS_CLOSED, or -1 with an exception (a fork's copy that could not be rebuilt). */
static inline int instance_enter(Instance *self);
static inline void instance_leave(Instance *self);

/* The same for a wait, and what the instance had seen when it began. */
typedef struct {
    uint32_t changes;
    uint32_t removals;
    int count; /* registrations */
} Seen;
static inline int instance_enter_wait(Instance *self, Seen *seen);
static inline void instance_leave_wait(Instance *self);

/* The ctl lock, for users only. */
static inline void instance_lock(Instance *self);
static inline void instance_unlock(Instance *self);

/* Close. 0; or the errno of close(2), if this call made it, or of waking the waiters, who then sleep on. */
int instance_close(Instance *self);

/* An eventfd that is ready for good, or -1 and errno. Kept on hand, so that closing works at EMFILE. */
int ready_eventfd(void);

/* Whether `fd` still is one; somebody may have closed every fd, as daemons do. */
bool is_ready_eventfd(int fd);

/* Make the waiters' calls return: put the ready eventfd into the kernel's list. 0 or an errno. */
int instance_wake(Instance *self);

/* What is left of the above when it is not plain sailing. */
int instance_enter_slowly(Instance *self);
int instance_enter_wait_slowly(Instance *self, Seen *seen);
void instance_leave_slowly(Instance *self, bool waiter);
void instance_lock_slowly(Instance *self);

static inline int
instance_enter(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && self->forks == fork_count;
    self->users += plain;
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_slowly(self);
}

static inline void
instance_leave(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN;
    self->users -= plain;
    STATE_UNLOCK(self);
    if (!plain) {
        instance_leave_slowly(self, false);
    }
}

static inline int
instance_enter_wait(Instance *self, Seen *seen)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && self->forks == fork_count && !self->moving && !self->haunted;
    if (plain) {
        self->users++;
        self->waiters++;
        self->waits++;
        *seen = (Seen){self->changes, self->removals, self->list.count};
    }
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_wait_slowly(self, seen);
}

static inline void
instance_leave_wait(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && !self->draining;
    if (plain) {
        self->users--;
        self->waiters--;
    }
    STATE_UNLOCK(self);
    if (!plain) {
        instance_leave_slowly(self, true);
    }
}

static inline void
instance_lock(Instance *self)
{
#ifdef Py_GIL_DISABLED
    if (!Py_IsInitialized()) {
        self->ctl = (PyMutex){0}; /* as instance_lock_slowly */
    }
    PyMutex_Lock(&self->ctl); /* lets go of the thread state while it waits */
#else
    if (self->ctl_held) {
        instance_lock_slowly(self);
    }
    self->ctl_held = true;
#endif
}

static inline void
instance_unlock(Instance *self)
{
#ifdef Py_GIL_DISABLED
    PyMutex_Unlock(&self->ctl);
#else
    if (self->ctl_waiting > 0) {
        self->ctl_waiting--;
        PyThread_release_lock(
            self->ctl_free); /* it is a waiter's now, or a thread in a loop would always be first */
    }
    else {
        self->ctl_held = false;
    }
#endif
}

#endif
