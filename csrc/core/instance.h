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
 *   without the GIL. No thread holds two of them; under it, only the state lock of the same instance is
 *   taken. A thread that has the state lock may try to take it, but waits for it only with no other lock
 *   held. On a build without a GIL, changes in place do without it, and change_lock() waits until none is
 *   under way: in_place.h.
 * References to Python objects are dropped outside both locks, and outside enter and leave.
 *
 * Users. A thread enters before it uses `epfd`, and leaves when it is done; no Python code runs between the
 * two. close() marks the instance as closed and wakes the waiters; the last user to leave closes the fds. So
 * close never waits for other threads, except for one that gives a forked copy its instance, and an fd cannot
 * be reused under a system call of ours.
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
} EventArray;

/* Makes the second item of the pair that a ready event yields. A new reference; NULL with an exception. */
typedef PyObject *(*EventsFactory)(ModuleState *module, uint32_t events, PyObject *data);

typedef enum {
    OPEN,
    FORKED_COPY,  /* in a child after fork(): has no kernel instance of its own yet */
    UNRELATED_FD, /* a forked copy; its fd now refers to another file */
    CLOSED,
} LifecycleState;

/* The comments name the functions that set a field, and after "cleared by" those that clear it. Every field
 * starts as 0 unless instance_new() is named. The fields that each wait and each event need come first, so
 * that they share cache lines. */
typedef struct {
    PyObject_HEAD
    ModuleState *module; /* with a reference to the module object: module_state.h (instance_new) */
    PyObject *weakrefs;  /* for CPython */
    struct {
        /* The kernel instance. instance_new, front_open, make_front_for_copy, switch_front; cleared by
         * epoll_fromfd, keep_unowned_fds_open, keep_taken_fd_open. */
        atomic_int epfd;
        /* -1 until fileno() is first called; set before `epfd` changes. instance_new, front_open; cleared as
         * `epfd`. */
        atomic_int front;
        /* `epfd` is about to be another file: no thread may begin to wait. instance_begin_fd_change; cleared
         * by instance_end_fd_change, instance_reset. */
        bool changing;
    } fds;
    /* Others register here: their events are delivered, and it is never rebuilt. instance_new. */
    bool foreign;
    bool always_ready; /* files that cannot be polled are accepted: core/always_ready.h. epoll_new */
    struct {
        Mutex ctl;
#ifdef Py_GIL_DISABLED
        Mutex state;
#endif
    } locks;
    struct {
        /* Threads between enter and leave. instance_enter, instance_enter_change, instance_begin_wait,
         * begin_in_place, instance_close, adopt; cleared by instance_leave, instance_leave_wait,
         * end_in_place, instance_reset. */
        int entered;
        int waiting; /* of these, the threads that wait */
        /* Changes in place that are under way without the ctl lock. begin_in_place; cleared by end_in_place,
         * instance_reset. */
        atomic_uint changing;
    } users;
    struct {
        LifecycleState state; /* instance_close, instance_reset, adopt_locked */
        bool finished;        /* the fds and the registrations have been given up: instance_finish */
        /* close() has put the always-ready eventfd into the kernel's list. instance_close,
         * instance_end_fd_change. */
        bool wakes_added;
        /* fork_epoch() of the process that this copy belongs to: instance_new, instance_reset. */
        atomic_uint epoch;
    } lifecycle;
    struct {
        /* Changes completed; set by the holder of the ctl lock, also without the GIL, or by begin_in_place
         * while that lock is free: change_complete. */
        _Atomic uint64_t completed;
        /* Changes begun: one more than `completed` while one is under way: change_begin. */
        uint64_t begun;
    } clock;
    InterestList list; /* change.h, rebuild.c; cleared by instance_finish */
    struct {
        atomic_uint last; /* the last one given out: instance_new, change_next_generation */
        /* The one before the first; random, unlike the epoll data of others: instance_new. */
        uint32_t base;
    } generations;
    struct {
        /* A rebuild waits until `users.waiting` is 0. drain; cleared by drain, instance_leave_slowly,
         * instance_reset. */
        bool active;
        atomic_uint done; /* 1 when it is: instance_leave_slowly; cleared by drain */
    } drain;
    struct {
        /* A stale registration reports. count_class; cleared by repair_stale, instance_reset. */
        bool found;
        uint64_t epoll_data; /* its data: count_class */
        /* The clock at the last rebuild; events fetched before prove nothing: apply_transfers. */
        uint64_t rebuilt_at;
        /* No repair before this time, in nanoseconds of CLOCK_MONOTONIC. repair_stale; cleared by
         * instance_reset. */
        int64_t retry_at;
    } stale;
    struct {
        EventArray *spare; /* the array of an earlier wait: batch_drop; cleared by ensure_capacity */
        int hint;          /* events that a wait should have room for, if more than are registered: fetch */
        unsigned limited;  /* batches of which a wait chose events: limit_to_maxevents */
    } batches;
    _Atomic(EventsFactory) make_events; /* NULL: event_member(). The layer above sets it */
    StandIns stand_ins; /* for these files: always_ready_settle; cleared by stand_in_close_all */
    struct {
        unsigned long long waits;           /* instance_begin_wait */
        unsigned long long events;          /* fetch */
        unsigned long long stale_events;    /* count_class */
        unsigned long long rebuilds;        /* repair_stale */
        unsigned long long failed_rebuilds; /* repair_stale */
        unsigned long long lost;            /* forget_closed, report_again, apply_transfers */
    } stats;                                /* reported by Epoll.stats() */
} Instance;

/* In a child, reset the counts and flags that are about threads of the parent. */
void instance_reset(Instance *self);

static inline void
instance_notice_fork(Instance *self)
{
    if (self->lifecycle.epoch != fork_epoch()) {
        instance_reset(self);
    }
}

#ifdef Py_GIL_DISABLED
#define STATE_LOCK(self) mutex_lock(&(self)->locks.state)
#define STATE_UNLOCK(self) mutex_unlock(&(self)->locks.state)
#else
#define STATE_LOCK(self) ((void)(self))
#define STATE_UNLOCK(self) ((void)(self))
#endif

/* While a forked copy is held, no other thread gives it an instance: it is being closed, or once this
 * returns, it has one. Returns whether it was a copy. */
static inline bool
instance_hold_copy(Instance *self)
{
    STATE_LOCK(self);
    bool copy = self->lifecycle.state == FORKED_COPY;
    STATE_UNLOCK(self);
    if (copy) {
        mutex_lock(&self->locks.ctl);
    }
    return copy;
}

static inline void
instance_release_copy(Instance *self, bool held)
{
    if (held) {
        mutex_unlock(&self->locks.ctl);
    }
}

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
    int epfd = self->fds.epfd; /* read first: the front may be about to take it over */
    int front_fd = self->fds.front;
    return front_fd >= 0 ? front_fd : epfd;
}

/* Whether the epoll data of an event were made here. Those of others have other generations: ours start at
 * random. */
static inline bool
instance_made(const Instance *self, uint64_t epoll_data)
{
    uint32_t age = epoll_data_generation(epoll_data) - self->generations.base;
    return age >= 1 && age <= self->generations.last - self->generations.base;
}

/* Become a user: 0, IS_CLOSED or NEEDS_REPAIR. */
static inline int instance_enter(Instance *self);
static inline void instance_leave(Instance *self);

/* The state of the instance around a wait: taken by instance_begin_wait(), completed by fetch(). */
typedef struct {
    int epfd;
    int watched;         /* entries that the kernel had when it began, as far as is known */
    bool stale;          /* a stale registration was reporting then */
    uint64_t rebuilt_at; /* stale.rebuilt_at then */
    uint64_t started;    /* changes completed when it began */
    uint64_t returned;   /* changes begun when it had returned */
} WaitSnapshot;

/* As instance_enter(), for a wait. */
static inline int instance_enter_wait(Instance *self, WaitSnapshot *snapshot);
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
int instance_enter_wait_slowly(Instance *self, WaitSnapshot *snapshot);
void instance_leave_slowly(Instance *self, bool waiter);

static inline int
instance_enter(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->lifecycle.state == OPEN && self->lifecycle.epoch == fork_epoch();
    self->users.entered += plain;
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_slowly(self);
}

/* As instance_enter(); and take the ctl lock if that is possible without waiting: `*locked`. */
static inline int
instance_enter_change(Instance *self, bool *locked)
{
    STATE_LOCK(self);
    bool plain = self->lifecycle.state == OPEN && self->lifecycle.epoch == fork_epoch();
    self->users.entered += plain;
    *locked = plain && self->users.changing == 0 && mutex_try_lock(&self->locks.ctl);
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_slowly(self);
}

static inline void
instance_leave(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->lifecycle.state == OPEN;
    self->users.entered -= plain;
    STATE_UNLOCK(self);
    if (!plain) {
        instance_leave_slowly(self, false);
    }
}

/* Whether a stale registration has reported and not been removed yet. */
static inline bool
instance_has_stale(Instance *self)
{
    STATE_LOCK(self);
    bool stale = self->stale.found;
    STATE_UNLOCK(self);
    return stale;
}

/* With the state lock. */
static inline void
instance_begin_wait(Instance *self, WaitSnapshot *snapshot)
{
    self->users.entered++;
    self->users.waiting++;
    self->stats.waits++;
    *snapshot = (WaitSnapshot){
        .epfd = self->fds.epfd,
        .watched = self->list.count > self->batches.hint ? self->list.count : self->batches.hint,
        .stale = self->stale.found,
        .rebuilt_at = self->stale.rebuilt_at,
        .started = self->clock.completed,
    };
}

static inline int
instance_enter_wait(Instance *self, WaitSnapshot *snapshot)
{
    STATE_LOCK(self);
    bool plain = self->lifecycle.state == OPEN && self->lifecycle.epoch == fork_epoch() &&
                 !self->fds.changing && !self->stale.found;
    if (plain) {
        instance_begin_wait(self, snapshot);
    }
    STATE_UNLOCK(self);
    return plain ? 0 : instance_enter_wait_slowly(self, snapshot);
}

static inline void
instance_leave_wait(Instance *self)
{
    STATE_LOCK(self);
    bool plain = self->lifecycle.state == OPEN && !self->drain.active;
    if (plain) {
        self->users.entered--;
        self->users.waiting--;
    }
    STATE_UNLOCK(self);
    if (!plain) {
        instance_leave_slowly(self, true);
    }
}

#endif
