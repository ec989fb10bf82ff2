/*
 * The one lock of the extension: a futex, the same on every CPython and every C library. It is not handed
 * over: the first thread to try when it is free gets it, so a thread that changes registrations in a loop
 * does not pay for a context switch each time. In a forked copy, a mutex held by a thread of the parent is
 * free, because the futex word also contains the number of the process.
 *
 *   word: 0 free; otherwise fork_epoch() << 2 | WAITERS? | LOCKED
 *
 * mutex_lock() is for code that holds the GIL (has an attached thread state). It never sleeps with the GIL,
 * and it never waits for the GIL while it has the mutex.
 */
#ifndef PYEPOLL_MUTEX_H
#define PYEPOLL_MUTEX_H

#include "base/compat.h" /* Py_GIL_DISABLED */

#include "base/atfork.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    atomic_uint word;
} Mutex;

enum { MUTEX_LOCKED = 1, MUTEX_WAITERS = 2 };

/* Put `word` into a mutex that was seen to be free. Only threads with the GIL do this, and a mutex belongs to
 * one interpreter: so on a build with a GIL nothing can have changed a free mutex meanwhile. */
static inline bool
mutex_take(Mutex *mutex, unsigned word)
{
#ifdef Py_GIL_DISABLED
    unsigned free = 0;
    return atomic_compare_exchange_strong_explicit(&mutex->word, &free, word, memory_order_acquire,
                                                   memory_order_relaxed);
#else
    if (atomic_load_explicit(&mutex->word, memory_order_acquire) != 0) {
        return false;
    }
    atomic_store_explicit(&mutex->word, word, memory_order_relaxed);
    return true;
#endif
}

static inline bool
mutex_try_lock(Mutex *mutex)
{
    return mutex_take(mutex, fork_epoch() << 2 | MUTEX_LOCKED);
}

static inline bool
mutex_is_free(const Mutex *mutex)
{
    return atomic_load_explicit(&mutex->word, memory_order_acquire) == 0;
}

void mutex_lock_contended(Mutex *mutex);
void mutex_wake(Mutex *mutex);

static inline void
mutex_lock(Mutex *mutex)
{
    if (!mutex_try_lock(mutex)) {
        mutex_lock_contended(mutex);
    }
}

/* Needs no GIL. */
static inline void
mutex_unlock(Mutex *mutex)
{
    unsigned word = atomic_exchange_explicit(&mutex->word, 0, memory_order_release);
    if ((word & MUTEX_WAITERS) != 0) {
        mutex_wake(mutex);
    }
}

/* A guard keeps the steps of one call together; on a build with a GIL, the GIL does that. No Python code may
 * run while it is held. */
#ifdef Py_GIL_DISABLED
typedef Mutex Guard;
#define guard_lock(guard) mutex_lock(guard)
#define guard_unlock(guard) mutex_unlock(guard)
#else
typedef struct {
    char none;
} Guard;
#define guard_lock(guard) ((void)(guard))
#define guard_unlock(guard) ((void)(guard))
#endif

/* Wait until `*word` is not `value`, `nanoseconds` at the longest, -1 for no limit. Without the GIL. Also
 * returns for no reason, as futex(2) does. */
void futex_wait(atomic_uint *word, unsigned value, long long nanoseconds);
void futex_wake_all(atomic_uint *word);

/* Wait a moment until `*word` is 0, about as long as an epoll_ctl takes. Returns whether it is. */
bool spin_until_zero(const atomic_uint *word);

#endif
