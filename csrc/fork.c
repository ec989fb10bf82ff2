#include "fork.h"

#include <pthread.h>
#include <stdatomic.h>

unsigned fork_count;

static void
in_child(void)
{
    fork_count++;
}

int
fork_count_start(void)
{
    static atomic_flag started = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&started)) {
        return 0;
    }
    int error = pthread_atfork(NULL, NULL, in_child);
    if (error != 0) {
        atomic_flag_clear(&started);
    }
    return error;
}
