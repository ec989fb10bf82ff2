/* call_soon_threadsafe, and how it wakes the loop.
 *
 *     another thread                      the loop's thread
 *     1. put the handle into the queue    1. sleep = ASLEEP
 *     2. sleep is ASLEEP or OUTSIDE?      2. is the queue empty? If so, wait; the pipe ends the wait
 *        then write to the pipe           3. sleep = AWAKE: looks at the queue before it waits again
 *
 * Whichever of the two steps 2 comes last sees the other thread's step 1. */
#ifndef PYEPOLL_INBOX_H
#define PYEPOLL_INBOX_H

#include "aio/loop.h"

/* The values of `sleep`. OUTSIDE: no turn of ours is running, so a waiter is not known. */
enum { OUTSIDE, ASLEEP, AWAKE };

/* In the loop's thread. Others change only ASLEEP, to AWAKE: what is AWAKE stays so. */
static inline void
inbox_stay_awake(EventLoop *self)
{
    if (atomic_load_explicit(&self->sleep, memory_order_relaxed) != AWAKE) {
        atomic_store(&self->sleep, AWAKE);
    }
}

/* A vectorcall method of a loop. */
PyObject *inbox_call_soon_threadsafe(EventLoop *self, PyObject *const *args, Py_ssize_t count,
                                     PyObject *names);

/* A method of a loop: empty the pipe, and handle the signals whose numbers are in it. */
PyObject *inbox_read_from_self(EventLoop *self, PyObject *ignored);

#endif
