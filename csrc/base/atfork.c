#include "base/atfork.h"

#include "base/syscalls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18 /* Linux 4.14 */
#endif

/* The number, and the memory of fork_wiped_memory(), which is as aligned as a page. */
typedef struct {
    unsigned epoch;
    _Alignas(64) char wiped[FORK_WIPED_SIZE];
} ForkPage;

/* The page before it is mapped, and where mapping fails. */
static ForkPage plain_page = {.epoch = 1};
unsigned *fork_page = &plain_page.epoch;

/* Of fork_call(). */
static void (*call_before)(void);
static void (*call_in_child)(void);

/* The highest number given out so far, by this process and its ancestors. */
static unsigned last_epoch = 1;

/* An fd that a child closes. A thread may have an fd table of its own, and a child gets a copy of the forking
 * thread's table: there, the fd may be another file. */
typedef struct {
    int fd;      /* plus 1; 0: a free place */
    int thread;  /* the thread that opened it */
    bool copied; /* before_fork() has seen that the child gets it */
} PrivateFd;

/* Guarded by `hold`. */
static PrivateFd private_fds[64];

/* Held by fork_hold(), and by the C library across each fork(). */
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;

void
fork_hold(void)
{
    (void)fork_epoch(); /* in a child, a thread that it does not have may have held it */
    pthread_mutex_lock(&hold);
}

void
fork_release(void)
{
    pthread_mutex_unlock(&hold);
}

void *
fork_wiped_memory(void)
{
    return ((ForkPage *)(void *)fork_page)->wiped;
}

void
fork_call(void (*before)(void), void (*in_child)(void))
{
    fork_hold();
    call_before = before;
    call_in_child = in_child;
    fork_release();
}

enum { PRIVATE_FDS = sizeof(private_fds) / sizeof(private_fds[0]) };

/* Put `now` where this thread has `fd`, or `fd` 0: in a free place. */
static bool
replace_private_fd(int fd, PrivateFd now)
{
    for (int i = 0; i < PRIVATE_FDS; i++) {
        if (private_fds[i].fd == fd && (fd == 0 || private_fds[i].thread == now.thread)) {
            private_fds[i] = now;
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
    if (fd >= 0 && !replace_private_fd(0, (PrivateFd){.fd = fd + 1, .thread = sys_gettid()})) {
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
    replace_private_fd(fd + 1, (PrivateFd){.thread = sys_gettid()});
    close(fd);
    fork_release();
}

/* The page has been wiped: this is a child that was made without fork handlers. It has one thread, or had
 * only one when it first came here. */
unsigned
fork_renew_epoch(void)
{
    *fork_page = ++last_epoch;
    hold = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    return *fork_page;
}

/* In the parent. */
static void
before_fork(void)
{
    fork_hold();
    for (int i = 0; i < PRIVATE_FDS; i++) {
        private_fds[i].copied = private_fds[i].fd > 0 && sys_may_share_fds(private_fds[i].thread);
    }
    if (call_before != NULL) {
        call_before();
    }
}

/* In the child. */
static void
in_child(void)
{
    if (*fork_page != 0) {
        memset(fork_wiped_memory(), 0, FORK_WIPED_SIZE); /* the kernel has not done it */
    }
    fork_renew_epoch();
    for (int i = 0; i < PRIVATE_FDS; i++) {
        if (private_fds[i].copied) {
            close(private_fds[i].fd - 1);
        }
        private_fds[i] = (PrivateFd){0};
    }
    if (call_in_child != NULL) {
        call_in_child();
    }
}

/* A page that a fork wipes. Without the advice (before Linux 4.14), the handlers alone notice forks. */
static ForkPage *
new_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return &plain_page;
    }
    (void)madvise(page, size, MADV_WIPEONFORK);
    ((ForkPage *)page)->epoch = last_epoch;
    return page;
}

int
fork_watch_start(void)
{
    static atomic_flag started = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&started)) {
        return 0;
    }
    int error = pthread_atfork(before_fork, fork_release, in_child);
    if (error != 0) {
        atomic_flag_clear(&started);
        return error;
    }
    fork_page = &new_page()->epoch;
    return 0;
}
