/*
 * One kernel epoll instance and all that this process knows about it: its fds, the interest list, and its
 * users. An Epoll is a handle on an Instance; fromfd makes a second handle on the same. This file has its
 * state, its locks, entering, leaving and closing. Repairs are in core/repair/.
 *
 * Fds. `epfd` is the kernel instance, and private: fileno() returns the fd of the front, an epoll that
 * watches the instance and that no repair ever replaces (core/front.h). Until fileno() is first called there
 * is no front, and `epfd` is the fd that the front will take over.
 *
 * Locks.
 * - The state lock guards every field. It is held for a few instructions, never over a system call or Python
 *   code. On a build with a GIL it is the GIL.
 * - The ctl lock makes a change to the kernel's list and to ours one step. It is held over system calls,
 *   without the GIL. It is taken with no other lock held, and no thread holds two of them; under it, only the
 *   state lock of the same instance is taken.
 * References to Python objects are dropped outside both locks, and outside enter and leave.
 *
 * Users. A thread enters before it uses `epfd`, and leaves when it is done; no Python code runs between the
 * two. close() marks the instance as closed and wakes the waiters; the last user to leave closes the fds. So
 * close never waits for other threads, and an fd cannot be reused under a system call of ours.
 *
 * The clock counts changes. A slot of the interest list has the time at which its last change was complete,
 * and a wait the time at which it began; core/repair/stale.h derives from the two which events are stale.
 */
#ifndef PYEPOLL_INSTANCE_H
#define PYEPOLL_INSTANCE_H

#include "base/atfork.h"
#include "base/module_state.h"
#include "base/mutex.h"
#include "core/interest.h"
#include "core/stand_in.h"

#include <stdatomic.h>
#include <sys/epoll.h>

extern PyType_Spec instance_spec;

/* The array that the kernel fills in one wait, kept for the next. */
typedef struct {
    int capacity;
    struct epoll_event events[];
} Array;

/* Makes the second item of the pair that a ready event yields. A new reference; NULL with an exception. */
typedef PyObject *(*EventsFactory)(ModuleState *module, uint32_t events, PyObject *data);

typedef enum {
    OPEN,
    FORKED_COPY,  /* in a child after fork(): has no kernel instance of its own yet */
    UNRELATED_FD, /* a forked copy whose fd refers to another file by now */
    CLOSED,
} Standing;

typedef struct {
    PyObject_HEAD
    ModuleState *module; /* with a reference to the module object: module_state.h */
    PyObject *weakrefs;
    atomic_int epfd;
    atomic_int front_fd; /* -1 until fileno() is first called; set before `epfd` changes */
    Standing standing;
    bool always_ready; /* files that cannot be polled are accepted: core/always_ready.h */
    bool foreign;      /* others register here: their events are delivered, and it is never rebuilt */
    bool fd_changing;  /* `epfd` is about to be another file: no thread may begin to wait */
    bool finished;     /* the fds and the registrations have been given up */
    bool wakes_added;  /* close() has put the always-ready eventfd into the kernel's list */
    atomic_uint epoch; /* fork_epoch() of the process that this copy belongs to */
    int users;         /* threads between enter and leave */
    int waiters;       /* of these, the threads that wait */
    InterestList list;
    atomic_uint generation; /* the last one given out */
    uint32_t first; /* the one before the first; random, so that other epolls' data do not look like ours */
    _Atomic uint64_t clock; /* changes completed; set by the holder of the ctl lock, also without the GIL */
    uint64_t begun;         /* changes begun: one more than `clock` while one is under way */
    struct {
        bool active;      /* a rebuild waits until `waiters` is 0 (drain, instance_leave_slowly) */
        atomic_uint done; /* 1 when it is */
    } drain;
    struct {
        bool found;          /* a stale registration reports (stale_classify, stale_check_open; repair) */
        uint64_t epoll_data; /* its data */
        uint64_t rebuilt_at; /* the clock at the last rebuild: events fetched before prove nothing */
        int64_t retry_at;    /* no repair before this time, in nanoseconds of CLOCK_MONOTONIC */
    } stale;
    unsigned limited_batches; /* batches of which a wait chose events (limit_to_maxevents) */
    int hint;                 /* how many events a wait should have room for, if more than are registered */
    _Atomic(EventsFactory) make_events; /* set by the layer above; NULL: event_member() */
    Array *spare;
    StandIns stand_ins;
    Mutex ctl;
#ifdef Py_GIL_DISABLED
    Mutex state;
#endif
    struct {
        unsigned long long waits, events, stale_events, rebuilds, failed_rebuilds, lost;
    } stats; /* reported by Epoll.stats() */
} Instance;

/* In a child, reset the counts and flags that are about threads of the parent. */
void instance_reset(Instance *self);

static inline void
instance_notice_fork(Instance *self)
{
    if (self->epoch != fork_epoch()) {
        instance_reset(self);
    }
}

#ifdef Py_GIL_DISABLED
#define STATE_LOCK(self) mutex_lock(&(self)->state)
#define STATE_UNLOCK(self) mutex_unlock(&(self)->state)
#else
#define STATE_LOCK(self) ((void)(self))
#define STATE_UNLOCK(self) ((void)(self))
#endif

/* Results of instance_enter() besides 0. */
enum {
    IS_CLOSED = 1,
    NEEDS_REPAIR = 2, /* repair_enter() and repair_enter_wait() handle it */
};

/* A new reference; takes over `epfd`, and unless it is foreign closes it when that fails. */
Instance *instance_new(ModuleState *module, int epfd, bool foreign);

/* The Instance of this interpreter with the public fd `fd`: a new reference; NULL without an exception where
 * there is none, with one on failure. */
Instance *instance_find(ModuleState *module, int fd);

/* The fd that fileno() returns: the front's, or without a front `epfd`. */
static inline int
instance_public_fd(const Instance *self)
{
    int epfd = self->epfd; /* read first: the front may be about to take it over */
    int front_fd = self->front_fd;
    return front_fd >= 0 ? front_fd : epfd;
}

/* Whether the epoll data of an event were made here. Those of others have other generations: ours start at
 * random. */
static inline bool
instance_made(const Instance *self, uint64_t epoll_data)
{
    uint32_t age = epoll_data_generation(epoll_data) - self->first;
    return age >= 1 && age <= self->generation - self->first;
}

/* Become a user: 0, IS_CLOSED or NEEDS_REPAIR. */
static inline int instance_enter(Instance *self);
static inline void instance_leave(Instance *self);

/* The same for a wait. The state of the instance around it: */
typedef struct {
    int epfd;
    int watched;       /* entries that the kernel had when it began, as far as is known */
    bool stale;        /* a stale registration was reporting then */
    uint64_t rebuilt;  /* stale.rebuilt_at then */
    uint64_t started;  /* changes completed when it began */
    uint64_t returned; /* changes begun when it had returned */
} Seen;
static inline int instance_enter_wait(Instance *self, Seen *seen);
static inline void instance_leave_wait(Instance *self);

/* Close. 0; or the errno of close(2), if this call closed the fd, or of waking the waiters, which then sleep
 * on. */
int instance_close(Instance *self);

/* An eventfd that is always ready, or -1 and errno. Made beforehand, so that closing works at EMFILE. */
int always_ready_eventfd(void);

/* Whether `fd` still is one; a daemon may have closed all its fds. */
bool is_always_ready_eventfd(int fd);

/* Make the waiters' calls return: put the ready eventfd into the list of the kernel instance `epfd`. 0 or an
 * errno. */
int instance_wake(Instance *self, int epfd);
void instance_unwake(Instance *self, int epfd);

/* `epfd` is about to become another file, if this returns true: the ctl lock is held, and it is not closed.
 * At the end, waiters that close() could not reach meanwhile are woken. */
bool instance_begin_fd_change(Instance *self);
void instance_end_fd_change(Instance *self);

/* Whether to repair a stale registration now. With the state lock. */
bool instance_repair_is_due(const Instance *self);

/* The slow paths of the inline functions. */
int instance_enter_slowly(Instance *self);
int instance_enter_wait_slowly(Instance *self, Seen *seen);
void instance_leave_slowly(Instance *self, bool waiter);

static inline int
instance_enter(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && self->epoch == fork_epoch();
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

/* With the state lock. */
static inline void
instance_begin_wait(Instance *self, Seen *seen)
{
    self->users++;
    self->waiters++;
    self->stats.waits++;
    *seen = (Seen){
        .epfd = self->epfd,
        .watched = self->list.count > self->hint ? self->list.count : self->hint,
        .stale = self->stale.found,
        .rebuilt = self->stale.rebuilt_at,
        .started = self->clock,
    };
}

static inline int
instance_enter_wait(Instance *self, Seen *seen)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && self->epoch == fork_epoch() && !self->fd_changing &&
                 !self->stale.found;
    if (plain) {
        instance_begin_wait(self, seen);
    }
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_wait_slowly(self, seen);
}

static inline void
instance_leave_wait(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->standing == OPEN && !self->drain.active;
    if (plain) {
        self->users--;
        self->waiters--;
    }
    STATE_UNLOCK(self);
    if (!plain) {
        instance_leave_slowly(self, true);
    }
}

#endif
