#include "aio/fdkernel.h"

#include "core/ctl.h"

int
fdkernel_check(int status)
{
    if (status == IS_CLOSED) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    }
    return status == 0 ? 0 : -1;
}

Answer
fdkernel_modify(LoopSelector *self, FdEntry *entry, uint8_t events)
{
    int status = fdkernel_check(
        ctl_modify(self->instance, entry->fd, fdtable_mask(events), (PyObject *)entry));
    if (status < 0 && PyErr_ExceptionMatches(PyExc_FileNotFoundError)) {
        PyErr_Clear();
        return NEW_FILE;
    }
    return status == 0 ? SAME_FILE : REFUSED;
}

int
fdkernel_add(LoopSelector *self, FdEntry *entry, uint8_t events, bool exists)
{
    int status;
    Answer answer = NEW_FILE;
    while (answer == NEW_FILE) { /* again: another thread has removed it between the two calls */
        status = fdkernel_check(
            ctl_register(self->instance, entry->fd, fdtable_mask(events), (PyObject *)entry));
        if (status == 0 || !exists || !PyErr_ExceptionMatches(PyExc_FileExistsError)) {
            return status;
        }
        PyErr_Clear();
        answer = fdkernel_modify(self, entry, events);
    }
    return answer == SAME_FILE ? 0 : -1;
}

unsigned
fdkernel_begin(LoopSelector *self, FdEntry *entry, uint8_t *present, uint8_t *wanted)
{
    guard_lock(&self->guard);
    unsigned operation = ++entry->operations;
    *present = entry->present;
    *wanted = entry->wanted;
    guard_unlock(&self->guard);
    return operation;
}

/* Whether the kernel, asked for `events`, has what is wanted: true if that is `events`, and no other thread
 * has begun a step. */
static bool
is_settled(LoopSelector *self, FdEntry *entry, unsigned operation, uint8_t events)
{
    guard_lock(&self->guard);
    bool settled = entry->operations == operation && entry->wanted == events;
    if (settled) {
        entry->present = events;
    }
    guard_unlock(&self->guard);
    return settled;
}

int
fdkernel_apply(LoopSelector *self, FdEntry *entry, uint8_t present, uint8_t wanted)
{
    if (wanted == 0) {
        return fdkernel_check(ctl_drop(self->instance, entry->fd));
    }
    Answer answer = present != 0 ? fdkernel_modify(self, entry, wanted) : NEW_FILE;
    if (answer == NEW_FILE) {
        answer = fdkernel_add(self, entry, wanted, true) == 0 ? SAME_FILE : REFUSED;
    }
    return answer == REFUSED ? -1 : 0;
}

int
fdkernel_settle(LoopSelector *self, FdEntry *entry, unsigned operation, uint8_t events)
{
    int status = 0;
    while (status == 0 && !is_settled(self, entry, operation, events)) {
        uint8_t present;
        operation = fdkernel_begin(self, entry, &present, &events);
        status = fdkernel_apply(self, entry, EVENT_READ | EVENT_WRITE, events);
    }
    return status;
}
