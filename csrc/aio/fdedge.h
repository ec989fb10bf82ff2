/*
 * Readers by edges. A level-triggered wait looks again at each fd that the last wait has reported, and finds
 * most of them empty, since their readers have read what there was. A reader that says so is switched to
 * edge-triggered: the kernel reports data once, when they arrive.
 *
 * The entry is level-triggered again, so that the kernel reports what is left, as soon as anything may be:
 * the reader has not read all; the event says more than that there are data; its event went to other code
 * than the reader; or the entry is changed in any way. For the last there is no code: BY_EDGES in `present`
 * makes it differ from `wanted`, and EPOLL_CTL_MOD looks at the fd again.
 */
#ifndef PYEPOLL_FDEDGE_H
#define PYEPOLL_FDEDGE_H

#include "aio/fdtable.h"

/* A reader in C: its function, and the object that it is a method of. */
typedef struct {
    PyCFunction function;
    PyObject *object;
} FdReader;

/* Switch to edges, if the fd is watched for reading alone and this is its reader, which promises to call
 * fdedge_end_of() unless it has read all. Nothing is done where the kernel refuses. 0, or -1 with an
 * exception. */
int fdedge_begin(LoopSelector *self, int fd, const FdReader *reader);

/* Switch back, if edges are in use: before the next wait. 0, or -1 with an exception. */
int fdedge_end(LoopSelector *self, FdEntry *entry);

/* The same, by fd. */
int fdedge_end_of(LoopSelector *self, int fd);

/* Whether an event says more than that there are data: the end of the stream, an error, urgent data. A read
 * that does not fill its buffer may then leave something. */
static inline bool
fdedge_says_more(const FdEntry *entry, long mask)
{
    return (entry->present & BY_EDGES) != 0 && (mask & ~(long)EPOLLIN) != 0;
}

#endif
