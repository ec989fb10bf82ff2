#include "base/atfork.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

/* Where fork_page points until the page is mapped, and stays where it cannot be. */
static unsigned plain_page = 1;
unsigned *fork_page = &plain_page;

/* The highest number given out so far, by this process and its ancestors. */
static unsigned last_epoch = 1;

/* Fds that a child closes, each plus 1; guarded by `hold`. */
static int private_fds[64];

/* Held by fork_hold(), and by the C library across each fork(). */
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;

void
fork_hold(void)
{
    pthread_mutex_lock(&hold);
}

void
fork_release(void)
{
    pthread_mutex_unlock(&hold);
}

/* Put `value` where `wanted` is. */
static bool
replace_private_fd(int wanted, int value)
{
    for (size_t i = 0; i < sizeof(private_fds) / sizeof(private_fds[0]); i++) {
        if (private_fds[i] == wanted) {
            private_fds[i] = value;
            return true;
        }
    }
    return false;
}

int
fork_private_fd(int (*make)(int), int arg)
{
    fork_hold();
    int fd = make(arg);
    if (fd >= 0 && !replace_private_fd(0, fd + 1)) {
        close(fd);
        fd = -1;
    }
    fork_release();
    return fd;
}

void
fork_close_private_fd(int fd)
{
    fork_hold();
    replace_private_fd(fd + 1, 0);
    close(fd);
    fork_release();
}

/* The page has been wiped: this is a child without fork handlers. It has one thread, or has had only one when
 * it first came here. */
unsigned
fork_settle(void)
{
    *fork_page = ++last_epoch;
    hold = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    return *fork_page;
}

/* In a child that is a copy of what the parent was in the midst of fork(). */
static void
in_child(void)
{
    fork_settle();
    for (size_t i = 0; i < sizeof(private_fds) / sizeof(private_fds[0]); i++) {
        if (private_fds[i] > 0) {
            close(private_fds[i] - 1);
            private_fds[i] = 0;
        }
    }
}

/* A page that a fork wipes. Without the advice (before Linux 4.14), the handlers alone notice forks. */
static unsigned *
new_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return &plain_page;
    }
    (void)madvise(page, size, MADV_WIPEONFORK);
    *(unsigned *)page = last_epoch;
    return page;
}

int
fork_watch_start(void)
{
    static atomic_flag started = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&started)) {
        return 0;
    }
    int error = pthread_atfork(fork_hold, fork_release, in_child);
    if (error != 0) {
        atomic_flag_clear(&started);
        return error;
    }
    fork_page = new_page();
    return 0;
}
