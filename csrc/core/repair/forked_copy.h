/* A forked copy: in a child after fork(), an Instance that has its registrations but whose kernel instance is
 * the parent's, until it is first used. */
#ifndef PYEPOLL_FORKED_COPY_H
#define PYEPOLL_FORKED_COPY_H

#include "core/instance.h"

/* Give it a kernel instance of its own, and first, to the forked copies that it watches: it is their new
 * fronts that it has to watch. No lock may be held. 0, or -1 with an exception. */
int forked_copy_adopt(Instance *self);

#endif
