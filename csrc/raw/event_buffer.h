/* EventBuffer: the raw layer's array of epoll_event that the kernel fills. */
#ifndef PYEPOLL_EVENT_BUFFER_H
#define PYEPOLL_EVENT_BUFFER_H

#include "base/compat.h"

#include <sys/epoll.h>

extern PyType_Spec event_buffer_spec;

typedef struct {
    PyObject_HEAD
    struct epoll_event *events; /* owned */
    int capacity;
    int count;       /* events of the last wait */
    unsigned waiter; /* 0, or 1 + the fork count of the process in which a wait fills the array */
} EventBuffer;

/* Claim the buffer for one wait. 0, or -1 and BufferError when another thread's wait has it. */
int event_buffer_claim(EventBuffer *self);

/* The wait has ended with `count` events, 0 if it failed. */
void event_buffer_release(EventBuffer *self, int count);

#endif
