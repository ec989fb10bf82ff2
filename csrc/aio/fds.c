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

PyObject *
fds_wait(LoopSelector *self, int64_t timeout, int maxevents)
{
    if (fdtable_check(self) < 0) {
        return NULL;
    }
    Instance *instance = (Instance *)Py_NewRef(self->instance);
    /* While stale registrations report, each wait fetches and filters all events, so it should return all. */
    const WaitRequest wait = {.timeout = timeout,
                              .deadline = timeout > 0 ? wait_deadline(timeout) : 0,
                              .maxevents = instance_has_stale(instance) ? INT_MAX : maxevents};
    guard_lock(&self->guard);
    self->waiting++; /* from here on, other threads leave nothing for later */
    guard_unlock(&self->guard);
    PyObject *list = fdchange_flush(self) == 0 ? ready_list(instance, &wait) : NULL;
    end_wait(self);
    Py_DECREF(instance);
    if (list == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    }
    return list;
}

FdEntry *
fds_event(LoopSelector *self, PyObject *pair, uint8_t *events)
{
    FdEntry *entry = (FdEntry *)PyTuple_GET_ITEM(pair, 0);
    *events = 0;
    if (!Py_IS_TYPE(entry, aio_of(self->module)->fds.entry_type)) {
        return NULL; /* of others: the Epoll can be seen by them */
    }
    guard_lock(&self->guard);
    *events = events_of(PyLong_AsLong(PyTuple_GET_ITEM(pair, 1))) & entry->wanted;
    guard_unlock(&self->guard);
    return entry;
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

/* Queue the handle of an event. 0, or -1 with an exception. */
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

int
fds_queue(LoopSelector *self, PyObject *list, FdsAppend append, void *queue)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        uint8_t events;
        FdEntry *entry = fds_event(self, PyList_GET_ITEM(list, i), &events);
        for (int direction = 0; direction < DIRECTIONS; direction++) {
            if ((events & (1 << direction)) != 0 && queue_handle(self, entry, direction, append, queue) < 0) {
                return -1;
            }
        }
    }
    return 0;
}
