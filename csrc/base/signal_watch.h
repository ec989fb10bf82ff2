/* Which signals of this process are watched: a handler in C remembers each signal that arrives, and writes to
 * an eventfd. One table for the process, whichever interpreter watches. Plain C. */
#ifndef PYEPOLL_SIGNAL_WATCH_H
#define PYEPOLL_SIGNAL_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* A set of signals: bit 0 is signal 1. */
typedef uint64_t SignalSet;
enum { SIGNALS = 64 };

static inline SignalSet
signal_bit(int number)
{
    return (SignalSet)1 << (number - 1);
}

/* Watch these signals, and take over the eventfd: 0 or more, the number of the watch. Otherwise -1, an errno
 * and the signal that was refused: EBUSY where it is watched already, or the error of sigaction(2). Without
 * the GIL. */
int signal_watch_add(SignalSet signals, int fd, int *error, int *refused);

/* Restore the former actions, wait for the handlers at work, send signals that were not taken again, and
 * close the eventfd. 0 or the errno of close(2). Without the GIL. */
int signal_watch_remove(int watch);

/* Take the signals that have arrived: each goes to one caller. Read the eventfd first. */
SignalSet signal_watch_take(SignalSet signals);

/* Put back signals that were taken: they arrive again. */
void signal_watch_put_back(SignalSet signals);

/* Whether the watch has an eventfd in this process. A child gets one of its own under the same fd, at once
 * or, where it was made without fork handlers or had no eventfd to spare, by signal_watch_renew(). */
bool signal_watch_is_ready(SignalSet signals);

/* 0 or an errno: EBADF where the child did not inherit the eventfd. Without the GIL. */
int signal_watch_renew(int watch);

/* The same for each watch that needs it; what fails is tried again by its next use. Without the GIL. */
void signal_watch_renew_all(void);

#endif
