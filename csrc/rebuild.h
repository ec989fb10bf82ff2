/*
 * A second kernel instance in the place of the first, under the same fd number: the cure of ghosts,
 * which no epoll_ctl can remove, and the way in which a fork's copy gets an instance of its own.
 *
 * The new instance is filled from our list, so what is not in it stays behind. What we cannot know is
 * read from the kernel: which one-shots are spent. All waiters have left the old instance before it
 * is read, so no state changes in between; an edge may be reported once more.
 */
#ifndef PYEPOLL_REBUILD_H
#define PYEPOLL_REBUILD_H

#include "instance.h"

/* Cure a haunted instance, or wait until another thread has. Not for users: it enters by itself. */
void rebuild_cure(Instance *self);

/* Give a fork's copy its own instance. 0, or -1 with an exception. */
int rebuild_orphan(Instance *self);

/* Whether the fd number of a fork's copy still is the instance that it was copied from: 0 if so;
 * EMPTY_EPOLL if it may be, an epoll that watches nothing; ESTRANGED_FILE if not; else an errno: that
 * cannot be seen now. */
enum { ESTRANGED_FILE = -1, EMPTY_EPOLL = -2 };
int rebuild_whose(Instance *self);

#endif
