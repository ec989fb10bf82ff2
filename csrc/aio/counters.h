/* The counters of a loop, for pyepoll.aio.stats(). The thread that runs the loop writes them, but for the
 * last two, without a locked instruction; any thread reads them. */
#ifndef PYEPOLL_COUNTERS_H
#define PYEPOLL_COUNTERS_H

#include "base/compat.h"
#include "base/monotonic.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic(int64_t) Counter;

typedef struct {
    Counter turns;
    Counter callbacks; /* added at the end of a turn */
    Counter events;
    Counter slow_callbacks; /* only while `timed` */
    /* Only while `timed`: the nanoseconds that the loop has waited, less the time at which the present wait
     * began. So it is negative during a wait, and a reader can add what has passed of that. */
    Counter idle;
    Counter highest_idle; /* that stats() has returned */
    atomic_bool timed;    /* by enable_stats() */
} LoopCounters;

/* Only in the thread that runs the loop. */
static inline void
counter_add(Counter *counter, int64_t count)
{
    int64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + count, memory_order_relaxed);
}

/* In any thread. */
static inline int64_t
counter_read(Counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Take what other code has counted. */
static inline int64_t
counter_take(Counter *counter)
{
    return atomic_exchange_explicit(counter, 0, memory_order_relaxed);
}

static inline bool
counters_are_timed(LoopCounters *self)
{
    return atomic_load_explicit(&self->timed, memory_order_relaxed);
}

/* The time of the callbacks of one turn. */
typedef struct {
    int64_t limit; /* a callback that takes so many nanoseconds is slow */
    int64_t last;  /* when the last one ended */
} CallbackTime;

/* Begin now; `slow` is the loop's slow_callback_duration. 0, or -1 with an exception. */
int callback_time_begin(CallbackTime *self, PyObject *slow);

/* A callback has run: count it if it was slow. */
void callback_time_check(CallbackTime *self, LoopCounters *counters);

/* The counters as a tuple, in the order of LoopStats. NULL with an exception. */
PyObject *counters_tuple(LoopCounters *self);

#endif
