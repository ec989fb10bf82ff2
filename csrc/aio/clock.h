/* The clock of a loop, as time.monotonic() shows it. */
#ifndef PYEPOLL_CLOCK_H
#define PYEPOLL_CLOCK_H

#include "base/monotonic.h"

/* In seconds, rounded as time.monotonic() rounds. */
static inline double
clock_now(void)
{
    int64_t now = monotonic_now();
    return now % 1000000000 == 0 ? (double)(now / 1000000000) : (double)now / 1e9;
}

#endif
