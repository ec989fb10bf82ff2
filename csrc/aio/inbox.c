#include "aio/inbox.h"

#include "aio/override.h"
#include "aio/process.h"
#include "aio/schedule.h"
#include "aio/sockets.h"
#include "aio/wake_event.h"

#include <errno.h>
#include <sys/socket.h>

/* The fd of one end of the self-pipe, which is a pair of sockets. -1, without an exception, where it is not
 * an open socket.socket. */
static int
fd_of(const AioState *state, PyObject *sock)
{
    if (sock == NULL || !Py_IS_TYPE(sock, state->fds.socket_type)) {
        return -1;
    }
    PyObject *number = socket_fileno(state, sock);
    int fd = number != NULL && PyLong_CheckExact(number) ? (int)PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    PyErr_Clear();
    return fd;
}

/* Write to the pipe, as _write_to_self() does. The other thread cannot go on while this one has the GIL. */
static int
write_to_pipe(EventLoop *self)
{
    PyObject *sock = Py_XNewRef(loop_member(&self->csock));
    int fd = fd_of(self->state, sock);
    Py_XDECREF(sock);
    if (fd < 0) {
        PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self,
                                                     self->state->loop.method_names[WRITE_TO_SELF]);
        Py_XDECREF(result);
        return result != NULL ? 0 : -1;
    }
    Py_BEGIN_ALLOW_THREADS
    send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* a full pipe wakes the loop as well */
    Py_END_ALLOW_THREADS
    return 0;
}

/* Wake the loop, unless it is awake. The first thread of several does it. 0, or -1 with an exception. */
static int
wake(EventLoop *self)
{
    int asleep = ASLEEP;
    if (atomic_load(&self->sleep) == AWAKE ||
        (!atomic_compare_exchange_strong(&self->sleep, &asleep, AWAKE) && asleep == AWAKE)) {
        return 0;
    }
    /* A hook that is replaced sees the event of the pipe, or the data in it. */
    const uint64_t hooks = BOTH_HOOKS(READ_FROM_SELF) | HOOK(PROCESS_SELF_DATA) | HOOK(PROCESS_EVENTS) |
                           HOOK(ADD_CALLBACK);
    return (loop_overridden(self) & hooks) == 0 && wake_event_set(self) ? 0 : write_to_pipe(self);
}

/* From CPython 3.14 on asyncio has a handle of its own for this, whose cancel() waits for a callback that is
 * running. */
static PyObject *
new_handle(AioState *state, const Call *call)
{
    PyObject *type = state->loop.threadsafe_handle;
    if (type == NULL) {
        return handle_new(state, call);
    }
    PyObject *tuple = PyTuple_New(call->count);
    for (Py_ssize_t i = 0; tuple != NULL && i < call->count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(call->args[i]));
    }
    PyObject *all[] = {NULL, call->callback, tuple, call->loop,
                       call->context != NULL ? call->context : Py_None};
    PyObject *handle = tuple != NULL
                           ? PyObject_Vectorcall(type, all + 1, 4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                           : NULL;
    Py_XDECREF(tuple);
    return handle;
}

PyObject *
inbox_call_soon_threadsafe(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const uint64_t used = HOOK(PRIVATE_CALL_SOON) | HOOK(CHECK_CLOSED) | BOTH_HOOKS(GET_DEBUG) |
                          HOOK(WRITE_TO_SELF) | STOCK_HOOK(CALL_SOON_THREADSAFE);
    Call call;
    ReadyQueue *queue;
    if (process_check(self->epoch) < 0) {
        return NULL;
    }
    if (!schedule_is_plain(self, used) || !schedule_parse(self, args, count, names, 0, &call) ||
        (queue = loop_queue(self)) == NULL) {
        return schedule_stock(self, CALL_SOON_THREADSAFE, args, count, names);
    }
    Py_INCREF(queue); /* the handle's constructor may run code that replaces `_ready` */
    PyObject *handle = new_handle(self->state, &call);
    if (handle != NULL && (ready_put_shared(queue, handle) < 0 || wake(self) < 0)) {
        Py_CLEAR(handle);
    }
    Py_DECREF(queue);
    return handle;
}

/* Data in the pipe is only of interest where it is the number of a signal. */
static bool
is_all_zero(const char *data, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++) {
        if (data[i] != 0) {
            return false;
        }
    }
    return true;
}

PyObject *
inbox_read_from_self(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    char data[4096];
    ssize_t size;
    do {
        bool replaced = (loop_overridden(self) & STOCK_HOOK(READ_FROM_SELF)) != 0;
        int fd = !replaced ? fd_of(self->state, loop_member(&self->ssock)) : -1;
        if (fd < 0) {
            return schedule_stock(self, READ_FROM_SELF, (PyObject *[]){NULL}, 0, NULL);
        }
        size = recv(fd, data, sizeof(data), MSG_DONTWAIT);
        if (size > 0 &&
            !(is_all_zero(data, size) && (loop_overridden(self) & HOOK(PROCESS_SELF_DATA)) == 0)) {
            PyObject *result = PyObject_CallMethod((PyObject *)self, "_process_self_data", "y#", data, size);
            Py_XDECREF(result);
            if (result == NULL) {
                return NULL;
            }
        }
    } while (size == sizeof(data) || (size < 0 && errno == EINTR));
    Py_RETURN_NONE;
}
