/*
 * A second kernel instance in the place of the first: what drops stale registrations, which no epoll_ctl can
 * remove, and what gives a forked copy an instance of its own.
 *
 * The new instance is filled from our list, so what is not in it stays behind. What we cannot know is read
 * from the kernel: which one-shots have fired. All waiters have left the old instance before it is read, so
 * no state changes meanwhile; an edge may be reported once more. The front watches the new instance before it
 * stops to watch the old one, so nobody outside notices.
 */
#ifndef PYEPOLL_REBUILD_H
#define PYEPOLL_REBUILD_H

#include "core/instance.h"

/* Registrations that a rebuild gave up, because their fds are not the registered files any more. */
typedef struct {
    Registration *items; /* from malloc; owned */
    int count;
} Lost;

/* With the ctl lock, and no waiter in the old instance. Of a forked copy, the old one is its parent's: it is
 * read and left alone. 0, FD_IS_UNRELATED, or an errno, and then the old instance is as it was. `lost` is to
 * be released either way, without locks: Python code may run. */
int rebuild(Instance *self, bool forked, Lost *lost);
void lost_release(Lost *lost);

#endif
