/* A forked copy: in a child after fork(), an Instance that has its registrations and, until it is first used,
 * the parent's kernel instance. */
#ifndef PYEPOLL_FORKED_COPY_H
#define PYEPOLL_FORKED_COPY_H

#include "core/instance.h"

/* Give it a kernel instance of its own; before that, the forked copies that it watches get theirs, because
 * it has to watch their new fronts. No lock may be held. 0, or -1 with an exception. */
int forked_copy_adopt(Instance *self);

#endif
