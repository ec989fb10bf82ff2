/* Epolls that watch an epoll: what they lose when its number gets another file, and get back. */
#ifndef PYEPOLL_NESTING_H
#define PYEPOLL_NESTING_H

#include "fdinfo.h"
#include "instance.h"

typedef struct {
    int outer;
    Instance *known; /* owned, and entered; NULL where it is no Epoll of this interpreter */
    Watched watched;
} Nesting;

typedef struct {
    Nesting *items; /* from malloc */
    int count;
    int error; /* why not all could be looked at: a lack of fds or memory, a sandbox; or 0 */
} Nestings;

/* Find the epolls of this process that watch `self`, leaving out those that belong to the parent of a
 * fork, and let go of `self` in each. */
Nestings nesting_detach(Instance *self, bool orphan);

/* Let them watch whatever has the number now, with the same words, and leave them. */
void nesting_attach(const Instance *self, Nestings *nestings);

/* Free the list. Python code may run. */
void nesting_release(Nestings *nestings);

#endif
