/* Ghosts: entries of the kernel's list that report for ever, and that no epoll_ctl can remove. */
#ifndef PYEPOLL_CURE_H
#define PYEPOLL_CURE_H

#include "instance.h"

/* Cure a haunted instance, or wait until another thread has. Not for users: it enters by itself. */
void cure_ghosts(Instance *self);

#endif
