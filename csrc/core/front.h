/*
 * The front: the epoll whose fd fileno() gives away. It watches the kernel instance and nothing else, so it
 * is readable when the instance has ready events.
 *
 * A repair replaces the kernel instance. Whoever watches an epoll, an Epoll, select.epoll, an asyncio loop,
 * another interpreter or process, watches one kernel file and would be left with the old one. They watch the
 * front, which stays. So a repair has nobody to find, to lock or to tell, and only whoever asks for fileno()
 * pays for it: an fd, and one more step in the kernel for each wake-up.
 */
#ifndef PYEPOLL_FRONT_H
#define PYEPOLL_FRONT_H

#include "core/instance.h"

/* Make one, if there is none: the front takes over the fd that the instance has had, and the instance gets
 * another. For a user of an OPEN instance that is not foreign; takes the ctl lock. 0 or an errno. */
int front_open(Instance *self);

/* A new front for the kernel instance `epfd`. An fd, or -1 and errno. Plain C, without the GIL. */
int front_new(uint32_t first, int epfd);

/* Let the front watch another kernel instance as well; 0 or an errno. And no longer watch one. Likewise. */
int front_watch(int front_fd, uint32_t first, int epfd);
void front_unwatch(int front_fd, int epfd);

/* Put `source` under the fd `target`, which keeps its close-on-exec flag; closes `source`. 0 or an errno. */
int front_take_fd(int source, int target);

#endif
