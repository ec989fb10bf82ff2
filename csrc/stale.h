/* Events that fit no registration: which are merely late, and which come from a ghost. */
#ifndef PYEPOLL_STALE_H
#define PYEPOLL_STALE_H

#include "instance.h"

/* An event whose word fits no registration, from a wait that began at `seen`. True if it fits one
 * after all; else it is counted, and if a ghost sent it the instance is haunted, so that the next
 * wait cures it first. */
bool stale_judge(Instance *self, const Seen *seen, uint64_t word);

/* Check that the fd of a live registration is open. False if it is not: then the registration is
 * forgotten and the instance haunted. */
bool stale_check_open(Instance *self, uint64_t word);

#endif
