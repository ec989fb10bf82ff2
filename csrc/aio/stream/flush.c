/* Sending: at once, at the end of a turn, or when the socket has room again.
 *
 * Between reading the fd and the call no other code can run that would close it; on a free-threaded build
 * that holds as long as no other thread closes the socket, which asyncio forbids. */
#include "aio/stream/stream.h"

#include "aio/exits.h"

#include <errno.h>
#include <limits.h>

/* A send of more than this lets other threads run. */
enum { SEND_HELD_MAX = 64 * 1024 };

enum { ENTRIES = 1024 }; /* the kernel's UIO_MAXIOV */

/* Up to this size, copying several pieces into one and send() cost less than sendmsg(). */
enum { JOINED_MAX = 4096 };

static ssize_t
send_joined(int fd, const struct iovec *entries, int count)
{
    char data[JOINED_MAX];
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        memcpy(data + size, entries[i].iov_base, entries[i].iov_len);
        size += entries[i].iov_len;
    }
    return send(fd, data, size, MSG_DONTWAIT);
}

/* Whether a lost connection raises SIGPIPE is up to the program: Python itself ignores it. */
static ssize_t
send_entries(int fd, struct iovec *entries, int count)
{
    if (count == 1) {
        return send(fd, entries[0].iov_base, entries[0].iov_len, MSG_DONTWAIT);
    }
    struct msghdr message = {.msg_iov = entries, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &message, MSG_DONTWAIT);
}

/* Without the GIL: another thread may call write() or abort() meanwhile, against asyncio's rules. The data
 * stays alive. */
static ssize_t
send_released(Stream *self, struct iovec *entries, int count)
{
    PyObject *held[ENTRIES];
    for (int i = 0; i < count; i++) {
        held[i] = Py_NewRef(self->queue.items[self->queue.head + (uint32_t)i]);
    }
    ssize_t sent;
    int error;
    Py_BEGIN_ALLOW_THREADS
    sent = send_entries(self->fd, entries, count);
    error = errno;
    Py_END_ALLOW_THREADS
    for (int i = 0; i < count; i++) {
        Py_DECREF(held[i]);
    }
    errno = error;
    return sent;
}

/* Where asyncio calls sendmsg() for data that it has kept. */
#if PY_VERSION_HEX >= 0x030C0000
enum { KEPT_BY_SENDMSG = 1 };
#else
enum { KEPT_BY_SENDMSG = 0 };
#endif

/* The first of the data, without what has been sent, as asyncio gives it to the method of a socket. */
static PyObject *
first_argument(Stream *self)
{
    PyObject *data = Py_NewRef(self->queue.items[self->queue.head]);
    PyObject *view = PyMemoryView_FromObject(data);
    PyObject *rest = view != NULL ? PySequence_GetSlice(view, self->queue.sent, PY_SSIZE_T_MAX) : NULL;
    Py_XDECREF(view);
    Py_DECREF(data);
    return self->writing && KEPT_BY_SENDMSG && rest != NULL ? Py_BuildValue("[N]", rest) : rest;
}

/* For a socket of a class that may have methods of its own. The count; -1 with errno, which is 0 where an
 * exception is set. */
static ssize_t
send_by_method(Stream *self)
{
    PyObject *name = stream_name(self, self->writing && KEPT_BY_SENDMSG ? NAME_SENDMSG : NAME_SEND);
    PyObject *data = first_argument(self);
    PyObject *sent = data != NULL ? PyObject_CallMethodOneArg(self->sock, name, data) : NULL;
    Py_ssize_t count = sent != NULL ? PyLong_AsSsize_t(sent) : -1;
    Py_XDECREF(sent);
    Py_XDECREF(data);
    errno = 0;
    if (count < 0 && PyErr_Occurred() == NULL) {
        PyErr_SetString(PyExc_ValueError, "the socket has sent a negative count of bytes");
    }
    if (count < 0 &&
        (PyErr_ExceptionMatches(PyExc_BlockingIOError) || PyErr_ExceptionMatches(PyExc_InterruptedError))) {
        PyErr_Clear();
        errno = EAGAIN;
    }
    return count;
}

static ssize_t
send_here_or_by_method(Stream *self, Py_ssize_t *wanted)
{
    if (stream_open_fd(self) < 0) {
        *wanted = PyBytes_GET_SIZE(self->queue.items[self->queue.head]) - self->queue.sent;
        return send_by_method(self);
    }
    struct iovec entries[ENTRIES];
    int count = queue_describe(&self->queue, entries, ENTRIES, wanted);
    return count > 1 && *wanted <= JOINED_MAX ? send_joined(self->fd, entries, count)
           : *wanted <= SEND_HELD_MAX         ? send_entries(self->fd, entries, count)
                                              : send_released(self, entries, count);
}

/* Send once; `sending` keeps a second send away, of another thread or of the socket's own method. `*wanted`
 * is how much was tried. The count; -1 with errno, which is 0 where an exception is set. */
static ssize_t
send_once(Stream *self, Py_ssize_t *wanted)
{
    self->sending = 1;
    ssize_t sent = send_here_or_by_method(self, wanted);
    self->sending = 0;
    return sent;
}

/* Send as much as the socket takes. 0, also where some is left; -1 with an exception. */
static int
send_queue(Stream *self)
{
    WriteQueue *queue = &self->queue;
    while (queue->count > 0) {
        uint32_t cleared = queue->cleared;
        Py_ssize_t wanted;
        ssize_t sent = send_once(self, &wanted);
        if (sent < 0 && errno == 0) {
            return -1;
        }
        if (sent < 0) {
            return would_block(errno) ? 0 : status_of(PyErr_SetFromErrno(PyExc_OSError));
        }
        if (queue->cleared != cleared) {
            return 0;
        }
        queue_consume(queue, sent < queue->size ? sent : queue->size);
        if (sent < wanted) {
            return 0;
        }
    }
    return 0;
}

/* A send has failed with the exception that is set. 0; -1 if it, or another, ends the program. */
static int
send_failed(Stream *self)
{
    PyObject *error = PyErr_GetRaisedException();
    bool fatal = !ends_program(error);
    int status = fatal && self->writing ? stream_unwatch(self, true) : 0;
    if (fatal) {
        queue_clear(&self->queue);
    }
    if (status == 0) {
        PyErr_SetRaisedException(Py_NewRef(error));
        status = fatal ? stream_fail(self, "Fatal write error on socket transport") : -1;
    }
    if (status == 0 && fatal) {
        status = stream_set_waiter(self, error);
    }
    Py_DECREF(error);
    return status;
}

/* The value of a limit of the write buffer, which asyncio keeps as an object. */
static Py_ssize_t
limit(PyObject *object)
{
    int overflow = 0;
    long long value = object != NULL && PyLong_Check(object) ? PyLong_AsLongLongAndOverflow(object, &overflow)
                                                             : 0;
    return overflow > 0 ? PY_SSIZE_T_MAX : (Py_ssize_t)value;
}

int
stream_maybe_pause(Stream *self)
{
    if (self->queue.size <= limit(self->high_water) || self->protocol_paused == Py_True) {
        return 0;
    }
    return status_of(PyObject_CallMethodNoArgs((PyObject *)self, stream_name(self, NAME_MAYBE_PAUSE)));
}

/* Take the steps of calls that came while the last data was being sent: they found it in the queue.
 * `closing` and `eof` are the fields of before. */
static int
catch_up(Stream *self, bool closing, bool eof)
{
    if (stream_set_waiter(self, NULL) < 0) {
        return -1;
    }
    if (self->conn_lost > 0) {
        return 0;
    }
    if (self->closing && !closing) {
        return stream_schedule_loss(self, Py_None);
    }
    return self->eof && !eof ? stream_shutdown(self) : 0;
}

int
stream_flush(Stream *self)
{
    if (self->queue.count == 0 || self->writing || self->sending) {
        return 0;
    }
    bool closing = self->closing, eof = self->eof;
    if (send_queue(self) < 0) {
        return send_failed(self);
    }
    if (self->queue.count == 0) {
        return catch_up(self, closing, eof);
    }
    /* Without a writer the rest would stay, unnoticed. */
    return stream_watch(self, true) == 0 ? stream_maybe_pause(self) : send_failed(self);
}

/* The writer's callback has sent all: the steps that waited for that are taken. */
static int
all_sent(Stream *self)
{
    if (stream_set_waiter(self, NULL) < 0) {
        return -1;
    }
    if (self->closing && self->conn_lost == 0) {
        self->conn_lost++;
        return stream_lost(self, Py_None);
    }
    return self->eof && self->conn_lost == 0 ? stream_shutdown(self) : 0;
}

/* The socket has room again. */
static int
write_ready(Stream *self)
{
    if (send_queue(self) < 0) {
        return send_failed(self);
    }
    if (self->queue.count == 0 && stream_unwatch(self, true) < 0) {
        return -1;
    }
    if (self->protocol_paused == Py_True) {
        if (status_of(PyObject_CallMethodNoArgs((PyObject *)self, stream_name(self, NAME_MAYBE_RESUME))) <
            0) {
            return -1;
        }
    }
    /* resume_writing() may have written, closed or aborted. */
    bool waits = self->closing || self->eof || is_given(self->empty_waiter);
    if (waits && stream_flush(self) < 0) {
        return -1;
    }
    return waits && self->queue.count == 0 ? all_sent(self) : 0;
}

PyObject *
stream_write_ready(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (self->conn_lost > 0 || self->queue.count == 0 || self->sending) {
        Py_RETURN_NONE;
    }
    return none_or_error(write_ready(self));
}

/* --- the list of a turn --- */

/* Note that `stream` has data to send. 0, or -1 with MemoryError. */
static int
list_stream(PendingWrites *writes, Stream *stream)
{
    if (writes->count == writes->capacity) {
        Py_ssize_t capacity = writes->capacity > 0 ? writes->capacity * 2 : 16;
        PyObject **items = PyMem_Realloc(writes->items, (size_t)capacity * sizeof(PyObject *));
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        writes->items = items;
        writes->capacity = capacity;
    }
    writes->items[writes->count++] = Py_NewRef(stream);
    stream->listed = 1;
    return 0;
}

/* The methods of a socket of another class see each write(), and its caller the exception. */
bool
stream_gathers(Stream *self)
{
    PendingWrites *writes = self->writes;
    if (writes == NULL || !writes->gather || writes->thread != PyThread_get_thread_ident() ||
        self->queue.size > limit(self->high_water) || stream_open_fd(self) < 0) {
        return false;
    }
    if (!self->listed && list_stream(writes, self) < 0) {
        PyErr_Clear();
        return false;
    }
    return true;
}

int
stream_flush_all(PendingWrites *writes)
{
    PyObject *first = NULL;
    /* More may be listed meanwhile: by pause_writing(), or an exception handler. A call inside this one, of
     * the hook before fork(), goes on from `flushed`, and leaves an empty list, to which more may come. */
    while (writes->flushed < writes->count) {
        Stream *stream = (Stream *)writes->items[writes->flushed++];
        stream->listed = 0;
        if (stream_flush(stream) < 0) {
            PyObject *error = PyErr_GetRaisedException();
            if (first == NULL) {
                first = error;
            }
            else {
                Py_DECREF(error);
            }
        }
        Py_DECREF(stream);
    }
    writes->flushed = writes->count = 0;
    if (first != NULL) {
        PyErr_SetRaisedException(first);
        return -1;
    }
    return 0;
}
