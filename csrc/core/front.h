/*
 * The front: the epoll that owns the fd returned by fileno(). It watches the kernel instance and nothing
 * else, so it is readable when the instance has ready events.
 *
 * A rebuild replaces the kernel instance. A watcher of an epoll (an Epoll, a select.epoll, an asyncio loop,
 * another interpreter or process) watches one kernel file, and would be left with the old instance. Watchers
 * watch the front instead, which is never replaced, so a rebuild need not find, lock or inform any of them.
 * The cost is one fd and one more step in the kernel for each wake-up, and only after a call of fileno().
 */
#ifndef PYEPOLL_FRONT_H
#define PYEPOLL_FRONT_H

#include "core/instance.h"

/* Make a front, if there is none: it takes over the present fd of the instance, which gets another. For a
 * user of an OPEN instance that is not foreign; takes the ctl lock. 0 or an errno. */
int front_open(Instance *self);

/* A new front for the kernel instance `epfd`. An fd, or -1 and errno. Plain C, without the GIL. */
int front_new(uint32_t base_generation, int epfd);

/* Let the front watch another kernel instance as well (0 or an errno), or no longer watch one. Plain C. */
int front_watch(int front_fd, uint32_t base_generation, int epfd);
void front_unwatch(int front_fd, int epfd);

/* Put `source` under the fd `target`, which keeps its close-on-exec flag; closes `source`. 0 or an errno. */
int front_take_fd(int source, int target);

#endif
