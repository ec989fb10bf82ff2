#include "aio/fdchange.h"

#include "aio/fdkernel.h"
#include "base/errors.h"
#include "core/ctl.h"
#include "selector/selector_key.h"

#include <errno.h>
#include <fcntl.h>

/* The kernel has refused, with the exception that is set: the fd is not watched. -1. */
static int
give_up(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    PyObject *error = PyErr_GetRaisedException();
    Garbage garbage = {0};
    guard_lock(&self->guard);
    fdtable_forget(self, entry, update, &garbage);
    guard_unlock(&self->guard);
    garbage_release(&garbage);
    PyErr_SetRaisedException(error);
    return -1;
}

/* A weak reference to a socket; NULL for another object. */
static PyObject *
reference_to(const LoopSelector *self, PyObject *fileobj)
{
    PyObject *reference = NULL;
    if (Py_IS_TYPE(fileobj, aio_of(self->module)->fds.socket_type)) {
        reference = PyWeakref_NewRef(fileobj, NULL);
        if (reference == NULL) {
            PyErr_Clear(); /* then each change is a system call */
        }
    }
    return reference;
}

/* Put the update into the table, and give up the closed file first, where there was one. */
static void
record(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events, PyObject *sock)
{
    Garbage garbage = {0};
    guard_lock(&self->guard);
    fdtable_install(self, entry, update, events, sock, &garbage);
    guard_unlock(&self->guard);
    garbage_release(&garbage);
}

/* The kernel says that the fd refers to another file: give up the one that was watched. The handle of the
 * update is in the table already, but it is for the new file. */
static void
forget_file(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    Garbage garbage = {0};
    guard_lock(&self->guard);
    fdtable_forget(self, entry, update, &garbage);
    for (int i = 0; i < DIRECTIONS; i++) {
        if (update->dropped[i] == update->handle) {
            garbage_add(&garbage, &update->dropped[i]);
        }
    }
    guard_unlock(&self->guard);
    garbage_release(&garbage);
}

/* The events to watch, of a file that is watched for `wanted`. */
static uint8_t
events_with(const FdUpdate *update, uint8_t wanted)
{
    return update->data != NULL ? update->events : wanted | update->events;
}

/* Ask the kernel at once. The table has the change first: a thread that waits must know the events that the
 * kernel may report from now on. 0, or -1 with an exception. */
static int
watch_now(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    uint8_t present, wanted;
    unsigned operation = fdkernel_begin(self, entry, &present, &wanted);
    uint8_t events = events_with(update, wanted);
    Answer answer = NEW_FILE;
    if (present != 0) {
        record(self, entry, update, events, reference_to(self, update->fileobj));
        answer = fdkernel_modify(self, entry, events);
    }
    if (answer == NEW_FILE && update->closed) {
        ctl_error(ENOENT, EPOLL_CTL_MOD, "modify", instance_public_fd(self->instance), entry->fd,
                  fdtable_mask(events));
        answer = REFUSED;
    }
    if (answer == NEW_FILE) {
        forget_file(self, entry, update);
        events = update->events;
        record(self, entry, update, events, reference_to(self, update->fileobj));
        answer = fdkernel_add(self, entry, events, true) == 0 ? SAME_FILE : REFUSED;
    }
    return answer == REFUSED ? give_up(self, entry, update) : fdkernel_settle(self, entry, operation, events);
}

/* Leave the system call to the next flush: possible for a known socket, unless a thread waits and the kernel
 * has to be asked. */
static bool
watch_later(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    if (!fdtable_is_known(self, entry, update)) {
        return false;
    }
    Garbage garbage = {0};
    guard_lock(&self->guard);
    uint8_t events = events_with(update, entry->wanted);
    uint8_t before = entry->wanted;
    bool later = entry->present != 0 && (self->waiting == 0 || events == entry->present);
    if (later) {
        entry->wanted = events;
        later = fdtable_queue(self, entry);
        entry->wanted = before;
    }
    if (later) {
        entry->operations++;
        fdtable_install(self, entry, update, events, NULL, &garbage);
    }
    guard_unlock(&self->guard);
    garbage_release(&garbage);
    return later;
}

int
fdchange_watch(LoopSelector *self, FdUpdate *update)
{
    if (fdtable_check(self) < 0) {
        return -1;
    }
    FdEntry *entry = fdtable_ensure(self, update);
    if (entry == NULL) {
        return -1;
    }
    int status = watch_later(self, entry, update) ? 0 : watch_now(self, entry, update);
    fdtable_leave(self, entry);
    return status;
}

int
fdchange_register(LoopSelector *self, FdUpdate *update)
{
    FdEntry *entry = fdtable_enter(self, update->fd);
    if (entry == NULL) {
        return fdchange_watch(self, update);
    }
    if (update->closed) {
        fdtable_leave(self, entry);
        PyErr_SetNone(PyExc_FileExistsError);
        return -1;
    }
    uint8_t present, wanted;
    unsigned operation = fdkernel_begin(self, entry, &present, &wanted);
    int status = fdtable_check(self) < 0 ? -1 : fdkernel_add(self, entry, update->events, false);
    if (status == 0) {
        /* The watched file has been closed. */
        forget_file(self, entry, update);
        record(self, entry, update, update->events, reference_to(self, update->fileobj));
        status = fdkernel_settle(self, entry, operation, update->events);
    }
    fdtable_leave(self, entry);
    return status;
}

/* With the guard: take the handles of these events out of the table; `events` are left. */
static void
take_out(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events, Garbage *garbage)
{
    for (int i = 0; i < DIRECTIONS; i++) {
        if ((update->events & (1 << i)) != 0) {
            update->dropped[i] = entry->handles[i];
            entry->handles[i] = NULL;
        }
    }
    garbage_add(garbage, &entry->data);
    garbage_add(garbage, &entry->key);
    if (events == 0) {
        garbage_add(garbage, &entry->fileobj);
    }
    fdtable_set_wanted(self, entry, events);
}

static void
erase(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events)
{
    Garbage garbage = {0};
    guard_lock(&self->guard);
    take_out(self, entry, update, events, &garbage);
    guard_unlock(&self->guard);
    garbage_release(&garbage);
}

/* Without a system call: the kernel has no entry, or it is that of the parent process. */
static int
unwatch_in_table(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events)
{
    erase(self, entry, update, events);
    guard_lock(&self->guard);
    entry->present = 0;
    guard_unlock(&self->guard);
    return 1;
}

/* 1, or -1 with an exception. */
static int
unwatch_now(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    uint8_t present, wanted;
    unsigned operation = fdkernel_begin(self, entry, &present, &wanted);
    uint8_t events = (uint8_t)(wanted & ~update->events);
    if (present == 0 || self->epoch != fork_epoch()) {
        return unwatch_in_table(self, entry, update, events);
    }
    if (events == 0) {
        erase(self, entry, update, 0); /* first: it is not watched any more, whatever the kernel says */
        return fdkernel_check(ctl_drop(self->instance, entry->fd)) < 0 ||
                       fdkernel_settle(self, entry, operation, 0) < 0
                   ? -1
                   : 1;
    }
    switch (fdkernel_modify(self, entry, events)) {
    case SAME_FILE:
        erase(self, entry, update, events);
        return fdkernel_settle(self, entry, operation, events) == 0 ? 1 : -1;
    case NEW_FILE:
        give_up(self, entry, update); /* of the closed file: the new one is not watched */
        return 1;
    default:
        return give_up(self, entry, update);
    }
}

static bool
unwatch_later(LoopSelector *self, FdEntry *entry, FdUpdate *update)
{
    if (!fdtable_is_known(self, entry, update)) {
        return false;
    }
    Garbage garbage = {0};
    guard_lock(&self->guard);
    uint8_t before = entry->wanted;
    uint8_t events = (uint8_t)(before & ~update->events);
    bool later = entry->present != 0 && self->waiting == 0 && self->epoch == fork_epoch();
    if (later) {
        entry->wanted = events;
        later = fdtable_queue(self, entry);
        entry->wanted = before;
    }
    if (later) {
        entry->operations++;
        take_out(self, entry, update, events, &garbage); /* at once: another thread may flush now */
    }
    guard_unlock(&self->guard);
    garbage_release(&garbage);
    return later;
}

int
fdchange_unwatch(LoopSelector *self, FdUpdate *update)
{
    FdEntry *entry = fdtable_enter(self, update->fd);
    if (entry == NULL) {
        return 0;
    }
    int status = unwatch_later(self, entry, update) ? 1 : unwatch_now(self, entry, update);
    fdtable_leave(self, entry);
    return status;
}

/* The next queued entry, for a call that ends with fdtable_leave(); or NULL. */
static FdEntry *
next_queued(LoopSelector *self)
{
    FdEntry *entry = NULL;
    guard_lock(&self->guard);
    while (entry == NULL && self->changes.count > 0) {
        FdEntry *slot = fdtable_slot(self, self->changes.fds[--self->changes.count]);
        if (slot != NULL && slot->queued) {
            slot->queued = false;
            entry = fdtable_use(slot);
        }
    }
    guard_unlock(&self->guard);
    return entry;
}

/* The kernel has refused a change that was left for later. If the file was closed, nothing reports that, as
 * in asyncio: the handles stay, and are not called. Another error is an exception: -1. */
static int
lose_file(LoopSelector *self, FdEntry *entry)
{
    PyObject *error = PyErr_GetRaisedException();
    bool closed = (fcntl(entry->fd, F_GETFD) < 0 && errno == EBADF) || !fdtable_has_socket(self, entry);
    guard_lock(&self->guard);
    entry->present = 0;
    guard_unlock(&self->guard);
    if (!closed || !PyErr_GivenExceptionMatches(error, PyExc_OSError)) {
        PyErr_SetRaisedException(error);
        return -1;
    }
    Py_DECREF(error);
    return 0;
}

/* The system call for an entry that was left for later, as fdkernel_apply(). But if the socket was closed,
 * and the fd refers to another file, that file is not added. */
static int
apply_later(LoopSelector *self, FdEntry *entry, uint8_t present, uint8_t wanted)
{
    if (wanted == 0 || present == 0) {
        return fdkernel_apply(self, entry, present, wanted);
    }
    Answer answer = fdkernel_modify(self, entry, wanted);
    if (answer == NEW_FILE && !fdtable_has_socket(self, entry)) {
        PyErr_SetNone(PyExc_FileNotFoundError);
        return -1;
    }
    return answer == SAME_FILE ? 0 : answer == NEW_FILE ? fdkernel_add(self, entry, wanted, true) : -1;
}

int
fdchange_flush(LoopSelector *self)
{
    int status = 0;
    FdEntry *entry;
    while (status == 0 && (entry = next_queued(self)) != NULL) {
        uint8_t present, wanted;
        unsigned operation = fdkernel_begin(self, entry, &present, &wanted);
        if (present != wanted) {
            status = apply_later(self, entry, present, wanted) == 0
                         ? fdkernel_settle(self, entry, operation, wanted)
                         : lose_file(self, entry);
        }
        fdtable_leave(self, entry);
    }
    return status;
}
