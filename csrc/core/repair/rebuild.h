/*
 * Replace the kernel instance by a second one: to drop stale registrations, which no epoll_ctl can remove,
 * and to give a forked copy an instance of its own.
 *
 * The new instance is filled from our list, so stale registrations stay behind. Only the kernel knows which
 * one-shots have fired, so that is read from it. All waiters have left the old instance before it is read, so
 * no state changes meanwhile; an edge may be reported once more. The front watches the new instance before it
 * stops watching the old one, so watchers of the front do not notice.
 */
#ifndef PYEPOLL_REBUILD_H
#define PYEPOLL_REBUILD_H

#include "core/instance.h"

/* Lost registrations: their fds no longer refer to the registered files. */
typedef struct {
    Registration *items; /* from malloc; owned */
    int count;
} LostRegistrations;

/* With the ctl lock, and no waiter in the old instance. Of a forked copy, the old one is its parent's: it is
 * read and left alone. 0, FD_IS_UNRELATED, or an errno, and then the old instance is as it was. `lost` is to
 * be released either way, without locks: Python code may run. */
int rebuild(Instance *self, bool forked, LostRegistrations *lost);
void lost_registrations_release(LostRegistrations *lost);

#endif
