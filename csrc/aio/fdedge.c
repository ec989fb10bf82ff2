#include "aio/fdedge.h"

#include "aio/fdchange.h"
#include "aio/fdkernel.h"
#include "aio/handle.h"
#include "core/ctl.h"

#include <limits.h>

static bool
is_reader(PyObject *callback, const FdReader *reader)
{
    return callback != NULL && PyCFunction_CheckExact(callback) &&
           PyCFunction_GET_FUNCTION(callback) == reader->function &&
           PyCFunction_GET_SELF(callback) == reader->object;
}

/* Whether the entry's handle calls the reader. */
static bool
calls_reader(LoopSelector *self, FdEntry *entry, const FdReader *reader)
{
    guard_lock(&self->guard);
    PyObject *handle = Py_XNewRef(entry->handles[READER]);
    guard_unlock(&self->guard);
    bool calls = false;
    if (handle != NULL && is_known_handle(&aio_of(self->module)->loop, handle)) {
        Py_BEGIN_CRITICAL_SECTION(handle);
        calls = is_reader(((StockHandle *)handle)->callback, reader);
        Py_END_CRITICAL_SECTION();
    }
    Py_XDECREF(handle);
    return calls;
}

/* Note edges in the table, before the kernel knows: another thread may take the first event at once. */
static bool
begin_in_table(LoopSelector *self, FdEntry *entry, unsigned *operation)
{
    guard_lock(&self->guard);
    bool begins = entry->present == EVENT_READ && entry->wanted == EVENT_READ;
    if (begins) {
        *operation = ++entry->operations;
        entry->present = EVENT_READ | BY_EDGES;
        entry->edge = EDGE_EMPTIED;
    }
    guard_unlock(&self->guard);
    return begins;
}

/* Whether no other thread has begun a step meanwhile; then `present` is what the kernel has. */
static bool
settle_edges(LoopSelector *self, FdEntry *entry, unsigned operation, uint8_t present)
{
    guard_lock(&self->guard);
    bool settled = entry->operations == operation;
    if (settled) {
        entry->present = present;
    }
    guard_unlock(&self->guard);
    return settled;
}

static bool
use_edges(LoopSelector *self, FdEntry *entry)
{
    unsigned operation;
    if (!begin_in_table(self, entry, &operation)) {
        return false;
    }
    uint32_t mask = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    bool done = ctl_modify(self->instance, entry->fd, mask, (PyObject *)entry) == 0;
    bool settled = settle_edges(self, entry, operation, EVENT_READ | (done ? BY_EDGES : 0));
    PyErr_Clear();
    if (!settled && fdkernel_settle(self, entry, operation, EVENT_READ) < 0) {
        PyErr_Clear(); /* the file is closed */
    }
    return done && settled;
}

bool
fdedge_begin(LoopSelector *self, int fd, const FdReader *reader)
{
    FdEntry *entry = fdtable_enter(self, fd);
    if (entry == NULL) {
        return false;
    }
    bool begun = calls_reader(self, entry, reader) && use_edges(self, entry);
    fdtable_leave(self, entry);
    return begun;
}

bool
fdedge_confirm(LoopSelector *self, int fd)
{
    guard_lock(&self->guard);
    FdEntry *entry = fdtable_slot(self, fd);
    bool by_edges = entry != NULL && (entry->present & BY_EDGES) != 0;
    if (by_edges && entry->edge == EDGE_UNREAD) {
        entry->edge = EDGE_EMPTIED;
    }
    guard_unlock(&self->guard);
    return by_edges;
}

int
fdedge_end(LoopSelector *self, FdEntry *entry)
{
    guard_lock(&self->guard);
    bool by_edges = (entry->present & BY_EDGES) != 0;
    if (by_edges) {
        fdtable_use(entry);
    }
    guard_unlock(&self->guard);
    if (!by_edges) {
        return 0;
    }
    int status = fdchange_apply(self, entry);
    fdtable_leave(self, entry);
    return status;
}

/* The next entry from the index on that is to be switched back: a new reference, or NULL. */
static FdEntry *
next_ending(LoopSelector *self, int *index)
{
    FdEntry *entry = NULL;
    guard_lock(&self->guard);
    while (entry == NULL && *index < self->changes.count) {
        FdEntry *slot = fdtable_slot(self, self->changes.fds[(*index)++]);
        if (slot != NULL && (slot->present & BY_EDGES) != 0 && !fdtable_is_emptied(slot)) {
            entry = (FdEntry *)Py_NewRef(slot);
        }
    }
    guard_unlock(&self->guard);
    return entry;
}

int
fdedge_flush(LoopSelector *self)
{
    int status = 0, index = self->epoch == fork_epoch() ? 0 : INT_MAX;
    FdEntry *entry;
    while (status == 0 && (entry = next_ending(self, &index)) != NULL) {
        status = fdedge_end(self, entry);
        Py_DECREF(entry);
    }
    return status;
}
