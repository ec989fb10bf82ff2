/*
 * The handler runs on any thread at any moment. So all that it touches is atomic and never freed, and all it
 * calls is a system call. It remembers the signal, then writes; the reader empties the eventfd, then takes
 * the signals. So a signal is either taken, or the eventfd is readable after it:
 *
 *     handler    sets the bit   writes
 *     reader                             reads the eventfd   takes the bits
 *
 * What the handler uses lies in memory that is zero in a child (base/atfork.h). There, no eventfd is known
 * until the child has one of its own: the parent never sees the child's signals, and the child never takes
 * the parent's.
 */
#include "base/signal_watch.h"

#include "base/atfork.h"
#include "base/fdinfo.h"
#include "base/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    atomic_ullong arrived;            /* set by on_signal(), cleared by signal_watch_take() */
    atomic_int threads[SIGNALS + 1];  /* that made the eventfds */
    atomic_int fds[SIGNALS + 1];      /* plus 1: the eventfd to write to; 0: none; or GIVEN_BACK */
    atomic_uint working[SIGNALS + 1]; /* how many handlers are between their first and their last step */
} Live;

/* The watch has ended. A thread may have been on its way to the handler: it sends the signal again, to the
 * former action. Only the first: code that others have installed may call the handler for each signal. */
enum { GIVEN_BACK = -1 };

_Static_assert(sizeof(Live) <= FORK_WIPED_SIZE, "the memory that is wiped in a child is too small");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a signal handler cannot take a lock");

static Live *live;

typedef struct {
    SignalSet signals; /* none: a free place */
    int fd;            /* -1 in a child that did not inherit it */
    int thread;        /* that made the eventfd: a thread may have an fd table of its own */
    bool inherited;    /* set by before_fork() */
} Watch;

/* Guarded by fork_hold(), like the changes of actions: a child has all of a change, or nothing. */
static Watch watches[SIGNALS];
static struct sigaction former[SIGNALS + 1];

/* A daemon may close all its fds, and open others under the same fds: nothing is written to its files, pipes
 * and sockets. */
static bool
may_be_eventfd(int fd)
{
    FileId file = sys_file_id(fd);
    return !file.known || file.mode == 0;
}

/* A thread with an fd table of its own has another file under the fd, or none. There, the signal goes to the
 * thread that made the eventfd. */
static void
make_readable(int number, int fd)
{
    int thread = atomic_load(&live->threads[number]);
    if (thread != sys_gettid() && !sys_may_share_fds(thread)) {
        syscall(SYS_tgkill, getpid(), thread, number);
    }
    else if (may_be_eventfd(fd)) {
        eventfd_write(fd, 1); /* EAGAIN: it is full, and so readable */
    }
}

static void
on_signal(int number)
{
    int error = errno;
    atomic_fetch_add(&live->working[number], 1);
    int given_back = GIVEN_BACK;
    if (atomic_compare_exchange_strong(&live->fds[number], &given_back, 0)) {
        kill(getpid(), number);
    }
    else {
        atomic_fetch_or(&live->arrived, signal_bit(number));
        int fd = atomic_load(&live->fds[number]) - 1;
        if (fd >= 0) {
            make_readable(number, fd);
        }
    }
    atomic_fetch_sub(&live->working[number], 1);
    errno = error;
}

static inline bool
has(SignalSet signals, int number)
{
    return (signals & signal_bit(number)) != 0;
}

/* Let the handler write to `fd`, plus 1, which this thread has made, or to nothing: 0 or GIVEN_BACK. */
static void
set_fd(SignalSet signals, int fd)
{
    for (int number = 1; number <= SIGNALS; number++) {
        if (has(signals, number)) {
            atomic_store(&live->threads[number], sys_gettid());
            atomic_store(&live->fds[number], fd);
        }
    }
}

/* In the parent. */
static void
before_fork(void)
{
    int thread = sys_gettid();
    for (int i = 0; i < SIGNALS; i++) {
        watches[i].inherited = watches[i].signals != 0 &&
                               (watches[i].thread == thread || sys_may_share_fds(watches[i].thread));
    }
}

/* Put an eventfd of this process in the place of the parent's. `alone`: there is no other thread that could
 * use an fd that is closed for a moment. 0 or an errno. */
static int
renew(Watch *watch, bool alone)
{
    if (watch->fd < 0 || !watch->inherited || fdinfo_is_any_eventfd(watch->fd) == EINVAL ||
        fcntl(watch->fd, F_GETFD) < 0) {
        watch->fd = -1;
        return EBADF;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool closed = fd < 0 && errno == EMFILE && alone;
    if (closed) {
        close(watch->fd);
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    int error = fd < 0 || (fd != watch->fd && dup3(fd, watch->fd, O_CLOEXEC) < 0) ? errno : 0;
    if (fd >= 0 && fd != watch->fd) {
        close(fd);
    }
    if (error != 0) {
        watch->fd = closed ? -1 : watch->fd;
        return error;
    }
    watch->thread = sys_gettid();
    set_fd(watch->signals, watch->fd + 1);
    if ((atomic_load(&live->arrived) & watch->signals) != 0) {
        eventfd_write(watch->fd, 1);
    }
    return 0;
}

/* In the child. What fails here is tried again by the first use. */
static void
in_child(void)
{
    for (int i = 0; i < SIGNALS; i++) {
        if (watches[i].signals != 0) {
            renew(&watches[i], true);
        }
    }
}

/* With fork_hold(). The number of a signal that is watched, or 0. */
static int
find_watched(SignalSet signals)
{
    for (int i = 0; i < SIGNALS; i++) {
        SignalSet both = watches[i].signals & signals;
        if (both != 0) {
            return __builtin_ctzll(both) + 1;
        }
    }
    return 0;
}

/* With fork_hold(). Restore the former actions; an action that others have set meanwhile stays. */
static void
restore(SignalSet signals)
{
    for (int number = 1; number <= SIGNALS; number++) {
        struct sigaction now;
        if (has(signals, number) && sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
            now.sa_handler == on_signal) {
            sigaction(number, &former[number], NULL);
        }
    }
}

/* With fork_hold(). 0, or a signal that sigaction(2) refuses, and errno. */
static int
catch_signals(SignalSet signals)
{
    /* SA_RESTART: what other threads wait for goes on. No wait on an epoll is ever restarted. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    for (int number = 1; number <= SIGNALS; number++) {
        if (has(signals, number) && sigaction(number, &action, &former[number]) < 0) {
            int error = errno;
            restore(signals & (signal_bit(number) - 1));
            errno = error;
            return number;
        }
    }
    return 0;
}

/* With fork_hold(). As signal_watch_add(). */
static int
add(SignalSet signals, int fd, int *refused)
{
    int i = 0;
    *refused = find_watched(signals);
    if (*refused != 0) {
        errno = EBUSY;
        return -1;
    }
    while (watches[i].signals != 0) {
        i++; /* each watch has a signal of its own, so there is a place */
    }
    if (live == NULL) {
        live = fork_wiped_memory();
    }
    atomic_fetch_and(&live->arrived, ~signals);
    set_fd(signals, fd + 1);
    *refused = catch_signals(signals);
    if (*refused != 0) {
        int error = errno;
        set_fd(signals, 0);
        errno = error;
        return -1;
    }
    watches[i] = (Watch){.signals = signals, .fd = fd, .thread = sys_gettid(), .inherited = true};
    return i;
}

int
signal_watch_add(SignalSet signals, int fd, int *error, int *refused)
{
    fork_call(before_fork, in_child);
    fork_hold();
    int watch = add(signals, fd, refused);
    *error = watch < 0 ? errno : 0;
    fork_release();
    return watch;
}

/* Wait until no handler of these signals uses the eventfd: they take a few instructions. */
static void
await_handlers(SignalSet signals)
{
    const struct timespec moment = {.tv_nsec = 20000};
    for (int number = 1; number <= SIGNALS; number++) {
        while (has(signals, number) && atomic_load(&live->working[number]) != 0) {
            nanosleep(&moment, NULL);
        }
    }
}

int
signal_watch_remove(int index)
{
    fork_hold();
    Watch watch = watches[index];
    bool shared = !signal_watch_is_ready(watch.signals); /* a child's: not renewed */
    restore(watch.signals);
    set_fd(watch.signals, GIVEN_BACK);
    SignalSet left = signal_watch_take(watch.signals);
    watches[index] = (Watch){0};
    fork_release();
    await_handlers(watch.signals);
    left |= signal_watch_take(watch.signals);
    for (int number = 1; number <= SIGNALS; number++) {
        if (has(left, number)) {
            kill(getpid(), number);
        }
    }
    bool unrelated = shared && (watch.fd < 0 || fdinfo_is_any_eventfd(watch.fd) == EINVAL);
    return unrelated || close(watch.fd) == 0 ? 0 : errno;
}

SignalSet
signal_watch_take(SignalSet signals)
{
    return atomic_fetch_and(&live->arrived, ~signals) & signals;
}

void
signal_watch_put_back(SignalSet signals)
{
    for (int number = 1; number <= SIGNALS; number++) {
        if (has(signals, number)) {
            on_signal(number);
        }
    }
}

bool
signal_watch_is_ready(SignalSet signals)
{
    return signals != 0 && atomic_load(&live->fds[__builtin_ctzll(signals) + 1]) > 0;
}

int
signal_watch_renew(int index)
{
    fork_hold();
    Watch *watch = &watches[index];
    int error = signal_watch_is_ready(watch->signals) ? 0 : renew(watch, false);
    fork_release();
    return error;
}

void
signal_watch_renew_all(void)
{
    fork_hold();
    for (int i = 0; i < SIGNALS; i++) {
        if (watches[i].signals != 0 && !signal_watch_is_ready(watches[i].signals)) {
            renew(&watches[i], false);
        }
    }
    fork_release();
}
