#include "aio/fds.h"

#include "aio/fdchange.h"
#include "aio/handle.h"
#include "aio/sockets.h"
#include "core/ready.h"
#include "selector/selector_key.h"

#include <limits.h>

/* fileno() of an object. -1 with an exception. */
static int
fd_of_object(LoopSelector *self, PyObject *fileobj)
{
    int fd = -1;
    const AioState *state = aio_of(self->module);
    if (Py_IS_TYPE(fileobj, state->fds.socket_type)) {
        /* The usual case, without the texts of errors. */
        PyObject *object = socket_fileno(state, fileobj);
        if (object == NULL) {
            return -1;
        }
        long number = PyLong_AsLong(object);
        Py_DECREF(object);
        if (number >= 0 && number <= INT_MAX) {
            return (int)number;
        }
        PyErr_Clear(); /* raised again below */
    }
    PyObject *object = fileobj_fd(fileobj, &fd);
    if (object != NULL && fd < 0) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
    }
    Py_XDECREF(object);
    return fd;
}

int
fds_fd_of(LoopSelector *self, PyObject *fileobj, bool *closed)
{
    *closed = false;
    int fd = fd_of_object(self, fileobj);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyObject *error = PyErr_GetRaisedException();
        fd = fdtable_find_object(self, fileobj);
        if (fd < 0) {
            PyErr_SetRaisedException(error);
        }
        else {
            *closed = true;
            Py_DECREF(error);
        }
    }
    return fd;
}

/* The events of a mask, as selectors.EpollSelector reports them. */
static uint8_t
events_of(long mask)
{
    return (uint8_t)(((mask & ~(long)EPOLLOUT) != 0 ? EVENT_READ : 0) |
                     ((mask & ~(long)EPOLLIN) != 0 ? EVENT_WRITE : 0));
}

PyObject *
fds_make_mask(ModuleState *Py_UNUSED(module), uint32_t events, PyObject *Py_UNUSED(data))
{
    return PyLong_FromUnsignedLong(events);
}

static void
end_wait(LoopSelector *self)
{
    guard_lock(&self->guard);
    self->waiting--;
    guard_unlock(&self->guard);
}

int
fds_wait(LoopSelector *self, int64_t timeout, int maxevents, FdsEvents *events)
{
    *events = (FdsEvents){0};
    if (fdtable_check(self) < 0) {
        return -1;
    }
    events->instance = (Instance *)Py_NewRef(self->instance);
    /* While stale registrations report, each wait fetches and filters all events, so it should return all. */
    const WaitRequest wait = {.timeout = timeout,
                              .deadline = timeout > 0 ? wait_deadline(timeout) : 0,
                              .maxevents = instance_has_stale(events->instance) ? INT_MAX : maxevents};
    guard_lock(&self->guard);
    self->waiting++; /* from here on, other threads leave nothing for later */
    guard_unlock(&self->guard);
    int status = fdchange_flush(self) == 0 ? wait_batch(events->instance, &wait, &events->batch) : -1;
    end_wait(self);
    if (status == IS_CLOSED) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    }
    return status == 0 ? 0 : -1;
}

int
fds_next(LoopSelector *self, FdsEvents *events, FdEntry **entry, uint8_t *ready)
{
    PyObject *pair;
    int status = ready_take(events->instance, &events->batch, &pair);
    *entry = NULL;
    *ready = 0;
    if (status <= 0) {
        return status;
    }
    PyObject *data = PyTuple_GET_ITEM(pair, 0);
    if (Py_IS_TYPE(data, aio_of(self->module)->fds.entry_type)) { /* others can see the Epoll */
        *entry = (FdEntry *)Py_NewRef(data);
        guard_lock(&self->guard);
        *ready = events_of(PyLong_AsLong(PyTuple_GET_ITEM(pair, 1))) & (*entry)->wanted;
        guard_unlock(&self->guard);
    }
    Py_DECREF(pair);
    return 1;
}

void
fds_end(FdsEvents *events)
{
    if (events->instance != NULL) {
        ready_drop(events->instance, &events->batch);
        Py_DECREF(events->instance);
    }
}

/* Whether a handle is cancelled. -1 with an exception. */
static int
is_cancelled(const AioState *state, PyObject *handle)
{
    if (is_known_handle(&state->loop, handle) && ((StockHandle *)handle)->cancelled == Py_False) {
        return 0;
    }
    PyObject *value = PyObject_GetAttr(handle, state->fds.names[FDS_CANCELLED]);
    int cancelled = value != NULL ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return cancelled;
}

/* Remove the event of a cancelled handle, unless another has taken its place. 0, or -1 with an exception. */
static int
remove_cancelled(LoopSelector *self, FdEntry *entry, int direction, const PyObject *handle)
{
    FdUpdate update = {.fd = entry->fd, .events = (uint8_t)(1 << direction)};
    guard_lock(&self->guard);
    update.fileobj = entry->handles[direction] == handle ? Py_XNewRef(entry->fileobj) : NULL;
    guard_unlock(&self->guard);
    int status = update.fileobj != NULL ? fdchange_unwatch(self, &update) : 0;
    Py_XDECREF(update.dropped[READER]);
    Py_XDECREF(update.dropped[WRITER]);
    Py_XDECREF(update.fileobj);
    return status < 0 ? -1 : 0;
}

/* The handle of an entry: a new reference, or NULL; an exception is set where its data are no pair. */
static PyObject *
handle_of(LoopSelector *self, FdEntry *entry, int direction)
{
    guard_lock(&self->guard);
    PyObject *handle = Py_XNewRef(entry->handles[direction]);
    bool pair = entry->data == NULL ||
                (PyTuple_CheckExact(entry->data) && PyTuple_GET_SIZE(entry->data) == DIRECTIONS);
    guard_unlock(&self->guard);
    if (!pair) {
        PyErr_Format(PyExc_TypeError, "the data of fd %d are not (reader, writer)", entry->fd);
    }
    return handle;
}

/* Queue one handle of an event. 0, or -1 with an exception. */
static int
queue_handle(LoopSelector *self, FdEntry *entry, int direction, FdsAppend append, void *queue)
{
    PyObject *handle = handle_of(self, entry, direction);
    if (handle == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    int status = is_cancelled(aio_of(self->module), handle);
    if (status > 0) {
        status = remove_cancelled(self, entry, direction, handle);
    }
    else if (status == 0) {
        status = append(queue, handle);
    }
    Py_DECREF(handle);
    return status;
}

/* Queue the handles of an event. 0, or -1 with an exception. */
static int
queue_entry(LoopSelector *self, FdEntry *entry, uint8_t ready, FdsAppend append, void *queue)
{
    int status = 0;
    for (int direction = 0; direction < DIRECTIONS && status == 0; direction++) {
        if ((ready & (1 << direction)) != 0) {
            status = queue_handle(self, entry, direction, append, queue);
        }
    }
    return status;
}

int64_t
fds_queue(LoopSelector *self, FdsEvents *events, FdsAppend append, void *queue)
{
    FdEntry *entry;
    uint8_t ready;
    int64_t count = 0;
    int status;
    while ((status = fds_next(self, events, &entry, &ready)) > 0) {
        status = queue_entry(self, entry, ready, append, queue);
        Py_XDECREF(entry);
        if (status < 0) {
            return -1;
        }
        count++;
    }
    return status < 0 ? -1 : count;
}
