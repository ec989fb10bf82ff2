/* One blocking wait: deadline, signals, signal mask, nanoseconds and the fallback to milliseconds. */
#ifndef PYEPOLL_WAIT_H
#define PYEPOLL_WAIT_H

#include "instance.h"

#include <signal.h>

/* With a timeout of 0, so often may nothing but stale events come before it counts as nothing. */
enum { WAIT_MOST_POLLS = 16 };

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
    Seen seen;
    unsigned refills; /* how often an endless iterator has fetched another */
} Batch;

/* When a wait that begins now is to end. */
int64_t wait_deadline(int64_t timeout);

bool wait_has_expired(const WaitFor *wait);

/* Wait until the kernel has an event, or to the deadline; `batch` must be used up. 0, and the batch may be
 * empty; IS_CLOSED; or -1 with an exception. */
int wait_any(Instance *self, const WaitFor *wait, Batch *batch);

/* The same, until there is an event that can be handed out. */
int wait_batch(Instance *self, const WaitFor *wait, Batch *batch);

/* Do without epoll_pwait2 if the environment variable PYEPOLL_NO_PWAIT2 is neither empty nor 0. Looked at once in
 * the process. */
void wait_read_environment(void);

/* Use epoll_pwait2, or do as if this kernel had none. Returns what was in force. */
bool wait_use_pwait2(bool use);
bool wait_uses_pwait2(void);

#endif
