/* WakeEvent: an eventfd that the loop's selector watches, with which other threads wake the loop. It costs a third of
 * what asyncio's pair of sockets costs, and nobody has to read from it. The pair stays for the numbers of signals,
 * and for as long as no other thread has woken the loop. */
#ifndef PYEPOLL_WAKE_EVENT_H
#define PYEPOLL_WAKE_EVENT_H

#include "aio/loop.h"

extern PyType_Spec wake_event_spec;

/* Give the loop one, if it has none and its selector is ours. If that fails, the pair of sockets is used. */
void wake_event_make(EventLoop *self);

/* Set it to another, or NULL; takes over the reference, and returns that of the one before. */
PyObject *wake_event_swap(EventLoop *self, PyObject *event);

/* Wake the loop. False if it has none. */
bool wake_event_set(EventLoop *self);

#endif
