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
#include "nesting.h"

/* What a rebuild leaves for when all locks have been let go. */
typedef struct {
    Registration *lost;
    int count;
    Nestings nestings;
} Leftover;

/* With the ctl lock, and no waiter in the old instance, which for an orphan is its parent's: it is read
 * and left alone. 0, or an errno, and then the old instance is as it was, but that we know which one-shots
 * are spent; `leftover` is to be released either way. */
int rebuild(Instance *self, bool orphan, Leftover *leftover);

/* Python code may run. */
void rebuild_release(Leftover *leftover);

/* Whether the fd number of a fork's copy still is the instance that it was copied from: 0 if so;
 * EMPTY_EPOLL if it may be, an epoll that watches nothing; ESTRANGED_FILE if not; else an errno: that
 * cannot be seen now. */
enum { ESTRANGED_FILE = -1, EMPTY_EPOLL = -2 };
int rebuild_whose(Instance *self);

#endif
