#include "fork.h"

#include <pthread.h>

unsigned fork_count;

static pthread_once_t started = PTHREAD_ONCE_INIT;
static int start_error;

static void
in_child(void)
{
    fork_count++;
}

static void
start(void)
{
    start_error = pthread_atfork(NULL, NULL, in_child);
}

int
fork_count_start(void)
{
    int error = pthread_once(&started, start);
    return error != 0 ? error : start_error;
}
