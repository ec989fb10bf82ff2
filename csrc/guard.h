/* What keeps the steps of one object's call together: a mutex, and on a build with a GIL the GIL. No Python
 * code may run while it is held. */
#ifndef PYEPOLL_GUARD_H
#define PYEPOLL_GUARD_H

#include "compat.h"
#include "fork.h"

#ifdef Py_GIL_DISABLED
#include <stdatomic.h>

/* Not the object's own lock: in a child it stays with a thread of the parent's that it was handed to
 * just before the fork. */
typedef struct {
    PyMutex mutex;
    atomic_uint forks; /* the fork count of the process that the mutex belongs to */
} Guard;

static inline void
guard_init(Guard *guard)
{
    guard->forks = fork_count;
}

static inline void
guard_lock(Guard *guard, void *owner)
{
    if (guard->forks != fork_count) {
        Py_BEGIN_CRITICAL_SECTION(owner);
        if (guard->forks != fork_count) {
            guard->mutex = (PyMutex){0};
            guard->forks = fork_count;
        }
        Py_END_CRITICAL_SECTION();
    }
    PyMutex_Lock(&guard->mutex);
}

static inline void
guard_unlock(Guard *guard)
{
    PyMutex_Unlock(&guard->mutex);
}
#else
typedef struct {
    char none;
} Guard;

static inline void
guard_init(Guard *Py_UNUSED(guard))
{
}

static inline void
guard_lock(Guard *Py_UNUSED(guard), void *Py_UNUSED(owner))
{
}

static inline void
guard_unlock(Guard *Py_UNUSED(guard))
{
}
#endif

#endif
