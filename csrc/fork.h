/* How many forks lie between this process and the one that first imported pyepoll: what an object
 * compares to learn that it is a copy in a child. Cheaper than getpid, and never fooled by a reused
 * process id. */
#ifndef PYEPOLL_FORK_H
#define PYEPOLL_FORK_H

/* Written only by a child while it has one thread, so it needs no lock. */
extern unsigned fork_count;

/* Start to count; once in a process, however many interpreters import the module. 0, or an errno. */
int fork_count_start(void);

/* Hold off forks for a moment, so that a child has what is done meanwhile either whole or not at all. Only
 * without the GIL, which the thread that forks has: what is done must need nothing of Python's. */
void fork_hold(void);
void fork_release(void);

#endif
