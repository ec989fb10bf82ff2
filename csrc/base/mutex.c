#include "base/mutex.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void
futex_wait(atomic_uint *word, unsigned value, long long nanoseconds)
{
    struct timespec span = {(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nanoseconds >= 0 ? &span : NULL, NULL, 0);
}

void
futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void
mutex_wake(Mutex *mutex)
{
    syscall(SYS_futex, &mutex->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Whether the holder exists: it may be a thread of the parent, or a daemon thread that the end of the
 * interpreter has stopped. */
static bool
has_holder(unsigned word)
{
    return word != 0 && word >> 2 == (fork_epoch() & (UINT_MAX >> 2)) && Py_IsInitialized();
}

static inline void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

bool
spin_until_zero(const atomic_uint *word)
{
    enum { SPINS = 200 };
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) == 0) {
            return true;
        }
        cpu_relax();
    }
    return false;
}

/* Sleep, without the GIL, until the mutex looks free. Returns whether this thread slept. */
static bool
sleep_until_free(Mutex *mutex)
{
    unsigned word = atomic_load_explicit(&mutex->word, memory_order_relaxed);
    if (has_holder(word) && ((word & MUTEX_WAITERS) != 0 ||
                             atomic_compare_exchange_strong(&mutex->word, &word, word | MUTEX_WAITERS))) {
        futex_wait(&mutex->word, word | MUTEX_WAITERS, -1);
        return true;
    }
    return false;
}

void
mutex_lock_contended(Mutex *mutex)
{
    unsigned mine = fork_epoch() << 2 | MUTEX_LOCKED;
    for (;;) {
        unsigned word = atomic_load_explicit(&mutex->word, memory_order_relaxed);
        if (!has_holder(word)) {
            if (atomic_compare_exchange_strong_explicit(&mutex->word, &word, mine, memory_order_acquire,
                                                        memory_order_relaxed)) {
                return;
            }
            continue;
        }
        /* With the GIL: the holder is mostly in an epoll_ctl, which is short, and needs no GIL to release the
         * mutex after it. To release the GIL and take it again would take longer. */
        if (spin_until_zero(&mutex->word)) {
            continue;
        }
        bool slept;
        Py_BEGIN_ALLOW_THREADS
        slept = sleep_until_free(mutex);
        Py_END_ALLOW_THREADS
        /* A thread that has slept cannot know whether others still do. */
        mine |= slept ? MUTEX_WAITERS : 0;
    }
}
