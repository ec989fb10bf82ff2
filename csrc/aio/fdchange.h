/*
 * Changes to the fds that a LoopSelector watches. A change for a socket that the table knows is only
 * recorded: fdchange_flush(), before the next wait, makes the system calls that are left. So a reader that is
 * removed and added again in one turn costs none. For everything else the system call, and its error, comes
 * at once.
 *
 * Known is a `socket.socket` for which the present entry of the kernel was made: the same object, and the
 * caller has just asked it for its fd. As long as it is open, the fd refers to the same file. An int or
 * another object may meanwhile stand for another file. The kernel decides: EPOLL_CTL_MOD of an fd that was
 * closed and reused gives ENOENT. Then the handles of the closed file are given up, and the new file is
 * added.
 *
 * Threads. The guard makes each step on the table atomic; it is not held over system calls. If two threads
 * change one fd at the same time, each finds out afterwards by `operations`, and repeats the call. While a
 * thread waits, nothing is left for later.
 */
#ifndef PYEPOLL_FDCHANGE_H
#define PYEPOLL_FDCHANGE_H

#include "aio/fdtable.h"

/* Watch for one more event, or with `data` for these. 0; or -1 with an exception, and the fd is not watched,
 * if the kernel refuses. */
int fdchange_watch(LoopSelector *self, FdUpdate *update);

/* Watch an fd, with `data`, that is not watched. As above; FileExistsError where it is. */
int fdchange_register(LoopSelector *self, FdUpdate *update);

/* Stop to watch for these events. 1; 0 where the fd was not watched; -1 with an exception as above. */
int fdchange_unwatch(LoopSelector *self, FdUpdate *update);

/* Make the system calls that are left. 0, or -1 with an exception: the rest is left for the next time. */
int fdchange_flush(LoopSelector *self);

#endif
