/* A fork's copy, which has its registrations but no kernel instance of its own until it is used. */
#ifndef PYEPOLL_ORPHAN_H
#define PYEPOLL_ORPHAN_H

#include "instance.h"

/* Give it one. 0, or -1 with an exception. */
int orphan_rebuild(Instance *self);

#endif
