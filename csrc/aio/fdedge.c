#include "aio/fdedge.h"

#include "aio/fdchange.h"
#include "aio/fdkernel.h"
#include "aio/handle.h"
#include "core/ctl.h"

static bool
is_reader(PyObject *callback, const FdReader *reader)
{
    return callback != NULL && PyCFunction_CheckExact(callback) &&
           PyCFunction_GET_FUNCTION(callback) == reader->function &&
           PyCFunction_GET_SELF(callback) == reader->object;
}

/* Whether a handle calls the reader. */
static bool
calls_reader(const LoopState *state, PyObject *handle, const FdReader *reader)
{
    if (handle == NULL || !is_known_handle(state, handle)) {
        return false;
    }
    bool calls = false;
    Py_BEGIN_CRITICAL_SECTION(handle);
    calls = is_reader(((StockHandle *)handle)->callback, reader);
    Py_END_CRITICAL_SECTION();
    return calls;
}

/* Whether the kernel, asked for edges, has what is wanted; as in fdkernel_settle(). */
static bool
settle_edges(LoopSelector *self, FdEntry *entry, unsigned operation)
{
    guard_lock(&self->guard);
    bool settled = entry->operations == operation && entry->wanted == EVENT_READ;
    if (settled) {
        entry->present = EVENT_READ | BY_EDGES;
    }
    guard_unlock(&self->guard);
    return settled;
}

static int
use_edges(LoopSelector *self, FdEntry *entry)
{
    uint8_t present, wanted;
    unsigned operation = fdkernel_begin(self, entry, &present, &wanted);
    if (present != EVENT_READ || wanted != EVENT_READ) {
        return 0;
    }
    uint32_t mask = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    if (ctl_modify(self->instance, entry->fd, mask, (PyObject *)entry) != 0) {
        PyErr_Clear();
        return 0;
    }
    return settle_edges(self, entry, operation) ? 0 : fdkernel_settle(self, entry, operation, EVENT_READ);
}

int
fdedge_begin(LoopSelector *self, int fd, const FdReader *reader)
{
    FdEntry *entry = fdtable_enter(self, fd);
    if (entry == NULL) {
        return 0;
    }
    guard_lock(&self->guard);
    PyObject *handle = Py_XNewRef(entry->handles[READER]);
    guard_unlock(&self->guard);
    int status = calls_reader(&aio_of(self->module)->loop, handle, reader) ? use_edges(self, entry) : 0;
    Py_XDECREF(handle);
    fdtable_leave(self, entry);
    return status;
}

int
fdedge_end(LoopSelector *self, FdEntry *entry)
{
    guard_lock(&self->guard);
    bool by_edges = (entry->present & BY_EDGES) != 0;
    bool now = by_edges && (self->waiting > 0 || !fdtable_queue(self, entry));
    if (now) {
        fdtable_use(entry);
    }
    guard_unlock(&self->guard);
    if (!now) {
        return 0;
    }
    int status = fdchange_apply(self, entry);
    fdtable_leave(self, entry);
    return status;
}

int
fdedge_end_of(LoopSelector *self, int fd)
{
    FdEntry *entry = fdtable_find(self, fd);
    int status = entry != NULL ? fdedge_end(self, entry) : 0;
    Py_XDECREF(entry);
    return status;
}
