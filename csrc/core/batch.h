/* The request of a wait, and the batch that it fetches. */
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
} WaitRequest;

/* The events that one wait has fetched, with those still to be handed out. */
typedef struct {
    EventArray *array; /* owned, or NULL */
    int next;
    int count;
    int fetched; /* as the kernel reported, including stale ones */
    bool full;   /* it may have more */
    WaitSnapshot snapshot;
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
wait_has_expired(const WaitRequest *wait)
{
    return wait->timeout > 0 && monotonic_now() >= wait->deadline;
}

/* The rest of the timeout, above 0 if it was. In a variable, because Py_MAX evaluates its arguments twice. */
static inline int64_t
wait_time_left(const WaitRequest *wait)
{
    if (wait->timeout <= 0) {
        return wait->timeout;
    }
    int64_t left = wait->deadline - monotonic_now();
    return Py_MAX(left, 1);
}

#endif
