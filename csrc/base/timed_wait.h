/* One waiting system call with a timeout in nanoseconds: epoll_pwait2, or where that is missing, forbidden or
 * turned off, epoll_pwait with milliseconds. Plain C, for use without the GIL. */
#ifndef PYEPOLL_TIMED_WAIT_H
#define PYEPOLL_TIMED_WAIT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* `timeout` is in nanoseconds, -1 for none; `set` are the signals to block meanwhile, or NULL. The number of
 * events, or -1 and errno. May return before the end of a timeout of more than 24 days. */
int timed_wait(int epfd, struct epoll_event *events, int maxevents, int64_t timeout, const sigset_t *set);

/* Do without epoll_pwait2 if the environment variable PYEPOLL_NO_PWAIT2 is neither empty nor 0. Looked at
 * once in the process. */
void timed_wait_read_environment(void);

/* Use epoll_pwait2, or act as on a kernel without it. Returns the setting until now. */
bool timed_wait_use_pwait2(bool use);
bool timed_wait_uses_pwait2(void);

/* Whether the program has switched it off, as opposed to a refusal of the call. */
bool timed_wait_switched_off_pwait2(void);

#endif
