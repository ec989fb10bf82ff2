/* LoopSelector, the selector of a loop: its functions for the other files of the layer. */
#ifndef PYEPOLL_FDS_H
#define PYEPOLL_FDS_H

#include "aio/fdtable.h"
#include "core/batch.h"

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

/* The events of one wait. */
typedef struct {
    Instance *instance; /* held, or NULL */
    Batch batch;
} FdsEvents;

/* Wait for events. `timeout` is in nanoseconds, NO_TIMEOUT to wait indefinitely, or 0. There are at most
 * `maxevents`, unless stale registrations report. 0, or -1 with an exception; fds_end() follows both. */
int fds_wait(LoopSelector *self, int64_t timeout, int maxevents, FdsEvents *events);

/* Take the next of them. 1; 0 where there is none; -1 with an exception. `*entry` is a new reference, or NULL
 * for an event of others; `*ready` has those of its events that are watched. */
int fds_next(LoopSelector *self, FdsEvents *events, FdEntry **entry, uint8_t *ready);

/* Append the handles of all: for each fd the reader before the writer, as asyncio's _process_events(). One
 * that is cancelled is skipped and removed. The number of events, or -1 with an exception. */
int64_t fds_queue(LoopSelector *self, FdsEvents *events, FdsAppend append, void *queue);

/* Give up what the wait has taken; the kernel reports again the events that are left. */
void fds_end(FdsEvents *events);

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
