/* LoopSelector, the selector of a loop: its functions for the other files of the layer. */
#ifndef PYEPOLL_FDS_H
#define PYEPOLL_FDS_H

#include "aio/fdtable.h"

extern PyType_Spec loop_selector_spec;
extern PyMethodDef loop_selector_methods[];

/* Append a handle to the loop's queue; takes over no reference. 0, or -1 with an exception. */
typedef int (*FdsAppend)(void *queue, PyObject *handle);

/* Whether `object` is a LoopSelector on whose table C may work: of the package's class itself. */
static inline bool
is_loop_selector(const AioState *state, PyObject *object)
{
    return object != NULL && Py_IS_TYPE(object, state->fds.selector_class);
}

/* Wait, and return a list of events, for fds_queue() or fds_event(). `timeout` is in nanoseconds, NO_TIMEOUT
 * to wait indefinitely, or 0. The list has at most `maxevents` events, unless stale registrations report.
 * NULL with an exception. */
PyObject *fds_wait(LoopSelector *self, int64_t timeout, int maxevents);

/* Append the handles of such events: for each fd the reader before the writer, as asyncio's
 * _process_events(). One that is cancelled is skipped and removed. 0, or -1 with an exception. */
int fds_queue(LoopSelector *self, PyObject *list, FdsAppend append, void *queue);

/* The entry of one of the events, borrowed, and those of its events that are watched; NULL where it is no
 * entry. */
FdEntry *fds_event(LoopSelector *self, PyObject *pair, uint8_t *events);

/* An EventsFactory (core/instance.h): the mask as an int. */
PyObject *fds_make_mask(ModuleState *module, uint32_t events, PyObject *data);

/* How many fds are watched, including the loop's own for call_soon_threadsafe(). */
static inline int
fds_count(LoopSelector *self)
{
    guard_lock(&self->guard);
    int count = self->table.count;
    guard_unlock(&self->guard);
    return count;
}

/* The fd of an object as asyncio's selectors find it. For a closed object, it is the one under which the
 * object is watched, and `*closed` is set. -1 with ValueError if there is none. */
int fds_fd_of(LoopSelector *self, PyObject *fileobj, bool *closed);

#endif
