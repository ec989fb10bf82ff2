/* WakeEvent: an eventfd that the loop's selector watches, with which other threads wake the loop. It costs a
 * third of what asyncio's pair of sockets costs, and no read is needed. The pair is for the numbers
 * of signals, and for loops without such an event. */
#ifndef PYEPOLL_WAKE_EVENT_H
#define PYEPOLL_WAKE_EVENT_H

#include "aio/loop.h"

extern PyType_Spec wake_event_spec;

/* A method of a loop: give it one, if its selector is ours. If that fails, the pair of sockets is used. */
PyObject *wake_event_make(EventLoop *self, PyObject *ignored);

/* Set it to another, or NULL; takes over the reference, and returns that of the one before. */
PyObject *wake_event_swap(EventLoop *self, PyObject *event);

/* Wake the loop. False if it has none. */
bool wake_event_set(EventLoop *self);

#endif
