/*
 * Readers by edges. A level-triggered wait looks again at each fd that the last wait has reported, and finds
 * most of them empty, since their readers have read what there was. A reader that says so is switched to
 * edge-triggered: the kernel reports data once, when they arrive.
 *
 * So that nothing gets lost, each event asks for level-triggered again, before the next wait; the reader
 * takes that back when it has emptied the socket. If anything else happens to the event, the kernel reports
 * the data again. This cannot be taken back after an event that says more than that there are data: then an
 * empty socket may still have the end of the stream to report.
 */
#ifndef PYEPOLL_FDEDGE_H
#define PYEPOLL_FDEDGE_H

#include "aio/fdtable.h"

/* A reader in C: its function, and the object that it is a method of. */
typedef struct {
    PyCFunction function;
    PyObject *object;
} FdReader;

/* Switch to edges, if the fd is watched for reading alone and this is its reader. False where that is not so,
 * or the kernel refuses. */
bool fdedge_begin(LoopSelector *self, int fd, const FdReader *reader);

/* The reader has emptied the socket. False if the fd is not watched by edges. */
bool fdedge_confirm(LoopSelector *self, int fd);

/* Switch back now. 0, or -1 with an exception. */
int fdedge_end(LoopSelector *self, FdEntry *entry);

/* Switch back all that the next wait would. 0, or -1 with an exception. */
int fdedge_flush(LoopSelector *self);

/* With the guard: an event was taken. False if fdedge_end() has to follow. */
static inline bool
fdedge_note_event(LoopSelector *self, FdEntry *entry, long mask)
{
    if ((entry->present & BY_EDGES) == 0) {
        return true;
    }
    entry->edge = (mask & ~(long)EPOLLIN) != 0 || entry->edge == EDGE_ENDS ? EDGE_ENDS : EDGE_UNREAD;
    return fdtable_queue(self, entry);
}

#endif
