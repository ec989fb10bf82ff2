/* The SelectorKeys of files in a LoopSelector. */
#ifndef PYEPOLL_FDKEY_H
#define PYEPOLL_FDKEY_H

#include "aio/fds.h"

/* The key of an entry, kept in it until something changes: a new reference. NULL with an exception; without
 * one where it is not watched any more. */
PyObject *fdkey_of(LoopSelector *self, FdEntry *entry);

/* The key of an fd: a new reference; NULL, without an exception where it is not watched. */
PyObject *fdkey_find(LoopSelector *self, int fd);

#endif
