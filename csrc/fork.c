#include "fork.h"

#include <pthread.h>
#include <stdatomic.h>

unsigned fork_count;

/* Whoever has it sees to it that no child gets a half of what it does. The whole process's, as a fork is. */
static pthread_mutex_t whole = PTHREAD_MUTEX_INITIALIZER;

void
fork_hold(void)
{
    pthread_mutex_lock(&whole);
}

void
fork_release(void)
{
    pthread_mutex_unlock(&whole);
}

static void
in_child(void)
{
    fork_count++;
    fork_release();
}

int
fork_count_start(void)
{
    static atomic_flag started = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&started)) {
        return 0;
    }
    int error = pthread_atfork(fork_hold, fork_release, in_child);
    if (error != 0) {
        atomic_flag_clear(&started);
    }
    return error;
}
