/* What a wait is asked for, and what it has fetched. */
#ifndef PYEPOLL_BATCH_H
#define PYEPOLL_BATCH_H

#include "base/monotonic.h"
#include "core/instance.h"

#include <signal.h>

typedef struct {
    int64_t timeout;  /* nanoseconds, or NO_TIMEOUT */
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

/* When a wait that begins now is to end. */
static inline int64_t
wait_deadline(int64_t timeout)
{
    int64_t start = monotonic_now();
    return timeout < INT64_MAX - start ? start + timeout : INT64_MAX;
}

static inline bool
wait_has_expired(const WaitFor *wait)
{
    return wait->timeout > 0 && monotonic_now() >= wait->deadline;
}

/* The rest of the timeout, above 0 if it was. The time is asked once, for Py_MAX evaluates twice. */
static inline int64_t
wait_time_left(const WaitFor *wait)
{
    if (wait->timeout <= 0) {
        return wait->timeout;
    }
    int64_t left = wait->deadline - monotonic_now();
    return Py_MAX(left, 1);
}

#endif
