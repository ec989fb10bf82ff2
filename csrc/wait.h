/* One blocking wait: deadline, signals, signal mask, nanoseconds and the fallback to milliseconds. */
#ifndef PYEPOLL_WAIT_H
#define PYEPOLL_WAIT_H

#include "core/instance.h"

#include <signal.h>

typedef struct {
    int64_t timeout;  /* nanoseconds, or FOREVER */
    int64_t deadline; /* where `timeout` is above 0: when it ends, in nanoseconds of CLOCK_MONOTONIC */
    int maxevents;
    bool masked;
    sigset_t set; /* blocked for the time of the wait, if `masked` */
} WaitFor;

/* What one wait has fetched and is still to be handed out. */
typedef struct {
    Array *array; /* owned, or NULL */
    int next;
    int count;
    int fetched; /* how many the kernel reported, stale ones included */
    bool full;   /* it may have more */
    Seen seen;
    unsigned refills; /* how often an endless iterator has fetched another */
} Batch;

/* The rounds of one call in which only stale events came. Starts as IDLE_START; wait_idle_end() frees it. */
typedef struct {
    int rounds;
    int guard_fd;        /* an epoll that watches the instance by edges; -1: none */
    uint64_t rebuilt_at; /* of the instance that it watches */
} Idle;
#define IDLE_START ((Idle){.guard_fd = -1})

/* When a wait that begins now is to end. */
int64_t wait_deadline(int64_t timeout);

bool wait_has_expired(const WaitFor *wait);

/* Wait until the kernel has an event, or to the deadline; `batch` must be used up. 0, and the batch may be
 * empty, also where `fetched` is not 0: all were stale; IS_CLOSED; or -1 with an exception. */
int wait_fetch(Instance *self, const WaitFor *wait, Batch *batch);

/* A batch had events, but nothing was handed out. Whether to wait again: not where the time is up. Where
 * stale registrations report that cannot be removed now, this call itself waits until something else happens.
 */
bool wait_goes_on(Instance *self, const WaitFor *wait, const Batch *batch, Idle *idle);
void wait_idle_end(Idle *idle);

/* wait_fetch() until there is an event that can be handed out. */
int wait_batch(Instance *self, const WaitFor *wait, Batch *batch);

/* Do without epoll_pwait2 if the environment variable PYEPOLL_NO_PWAIT2 is neither empty nor 0. Looked at
 * once in the process. */
void wait_read_environment(void);

/* Use epoll_pwait2, or do as if this kernel had none. Returns what was in force. */
bool wait_use_pwait2(bool use);
bool wait_uses_pwait2(void);

/* Whether the program has done that, and not a refusal of the call. */
bool wait_switched_off_pwait2(void);

#endif
