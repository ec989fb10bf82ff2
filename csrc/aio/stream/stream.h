/* The transport of a stream socket, and the functions of its files. */
#ifndef PYEPOLL_AIO_STREAM_H
#define PYEPOLL_AIO_STREAM_H

#include "aio/result.h"
#include "aio/sockop.h"
#include "aio/state.h"
#include "aio/stream/write_queue.h"

#include <structmember.h>
#include <sys/socket.h>

/* The writes of one turn of a loop: the transports that have data to send at its end. */
typedef struct {
    PyObject_HEAD
    PyObject **items;   /* SocketTransports that are `listed` */
    Py_ssize_t flushed; /* so many are no more: their references are taken (stream_flush_all) */
    Py_ssize_t count;
    Py_ssize_t capacity;
    unsigned long thread; /* of the loop, during a turn; 0 otherwise (stream_begin_turn, stream_end_turn) */
    bool enabled;         /* by the argument gather_writes of the loop */
    bool gather;          /* whether write() leaves data to the end of this turn */
} PendingWrites;

/* The first fields are the slots of asyncio's base classes; type_check_base() verifies them. A field that may
 * be NULL has been deleted, or the object was made by __new__ alone. */
typedef struct {
    PyObject_HEAD
    PyObject *extra;      /* BaseTransport: NULL until somebody looks (info.c) */
    PyObject *high_water; /* _FlowControlMixin; also the next three */
    PyObject *loop;       /* None when the connection is lost */
    PyObject *low_water;
    PyObject *protocol_paused;
    PyObject *dict; /* attributes that a program adds */
    PyObject *weakrefs;
    ModuleState *module;    /* held */
    PyObject *sock;         /* kept, closed, after the loss: for get_extra_info("socket") */
    PyObject *protocol;     /* None when the connection is lost */
    PyObject *context;      /* in which reads, and writes that had to wait, run */
    PyObject *server;       /* asyncio.Server, or None */
    PyObject *empty_waiter; /* of loop.sendfile(); None otherwise */
    PyObject *sendfile;     /* the task of loop.sendfile(), which abort() cancels; None otherwise */
    PyObject *sockname;
    PyObject *peername;
    PyObject *transport_socket; /* the one handed out, or NULL */
    PendingWrites *writes;      /* the loop's, or NULL */
    WriteQueue queue;
    Py_ssize_t max_size;       /* of one recv() */
    int fd;                    /* kept after the loss, as asyncio does */
    int conn_lost;             /* above 0 once connection_lost() is scheduled; counts later writes */
    unsigned bulk_size;        /* of the object that the next read goes straight into, or 0 (read.c) */
    unsigned char short_reads; /* so many in a row filled less than half of such an object */
    char context_given; /* by the caller: then connection_made() and connection_lost() run in it, too */
    char buffered;      /* the protocol is a BufferedProtocol */
    char closing;       /* close() was called, or the connection is lost */
    char paused;        /* pause_reading() was called */
    char eof;           /* write_eof() was called */
    char writing;       /* ... and for writing, because the socket did not take all */
    char sending;       /* a send is under way: without the GIL, or in the socket's own method */
    char listed;        /* in `writes` */
    char gone;          /* connection_lost() has been called */
} Stream;

static inline StreamState *
stream_state(const Stream *self)
{
    return &self->module->aio->stream;
}

static inline PyObject *
stream_name(const Stream *self, int name)
{
    return stream_state(self)->names[name];
}

static inline bool
is_given(PyObject *object)
{
    return object != NULL && object != Py_None;
}

/* Whether an object is a transport that close() was called for, or whose connection is lost. */
static inline bool
stream_is_closing(const StreamState *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->type) && ((Stream *)object)->closing;
}

/* watch.c: the calls of the transport to its loop. All return 0, or -1 with an exception. */
int stream_watch(Stream *self, bool writing);
int stream_unwatch(Stream *self, bool writing);
/* The arguments may be NULL. */
int stream_call_soon(Stream *self, PyObject *callback, PyObject *first, PyObject *second);
int stream_call_soon_self(Stream *self, int method, PyObject *argument);
int stream_is_debug(Stream *self); /* 1 or 0, or -1 */
int stream_check_thread(Stream *self);
int stream_log(Stream *self, const char *format); /* in debug mode; `format` has one %r */

/* pending_writes.c */
extern PyType_Spec writes_spec;

/* flush.c */
int stream_flush(Stream *self);    /* send the pending data: 0, or -1 with an exception that is not the
                                    * connection's */
bool stream_gathers(Stream *self); /* whether the data may wait for the end of the turn; it is listed then */
int stream_maybe_pause(Stream *self);
PyObject *stream_write_ready(PyObject *self, PyObject *ignored);

/* For the loop, around each turn. `object` is its _pending_writes: a new reference to it; NULL, without an
 * exception, if that is something else. The end takes the turn's status, whose exception comes first. */
PendingWrites *stream_begin_turn(const AioState *state, PyObject *object, bool may_gather);
int stream_end_turn(PendingWrites *writes, int status);

/* The end of a turn, and any other moment at which nothing may be pending. 0, or -1 with an exception; all
 * have been sent nevertheless. */
int stream_flush_all(PendingWrites *writes);

/* write.c */
PyObject *stream_write(PyObject *self, PyObject *data);
PyObject *stream_writelines(PyObject *self, PyObject *list);
PyObject *stream_write_eof(PyObject *self, PyObject *ignored);

/* close.c */
PyObject *stream_close(PyObject *self, PyObject *ignored);
PyObject *stream_abort(PyObject *self, PyObject *ignored);
PyObject *stream_force_close(PyObject *self, PyObject *error);
PyObject *stream_fatal_error_method(PyObject *self, PyObject *args);
PyObject *stream_call_connection_lost(PyObject *self, PyObject *error);
void stream_finalize(PyObject *self);
int stream_fail(Stream *self,
                const char *message);           /* end the connection because of the exception that is set;
                                                     * -1 with one that ends the program, or a new one */
int stream_lost(Stream *self, PyObject *error); /* connection_lost(error), now */
int stream_schedule_loss(Stream *self, PyObject *error); /* connection_lost(error), in a later turn */
int stream_shutdown(Stream *self);                       /* the end of the stream, for the peer */
int stream_set_waiter(Stream *self,
                      PyObject *error); /* let sendfile() go on; with an exception unless NULL */

/* read.c */
PyObject *transport_read_ready(PyObject *self, PyObject *ignored); /* the socket is readable */
int stream_open_fd(const Stream *self);                            /* the fd if C may use it, -1 otherwise */
int stream_nothing_received(Stream *self, ssize_t count, int error);
PyObject *stream_start_reading(PyObject *self, PyObject *ignored);
PyObject *stream_pause_reading(PyObject *self, PyObject *ignored);
PyObject *stream_resume_reading(PyObject *self, PyObject *ignored);

/* feed.c */
/* Pass data to a protocol that is asyncio's StreamReaderProtocol. 1; 0 if its data_received() has to do that;
 * -1 with an exception. */
int stream_feed(const Stream *self, const char *data, Py_ssize_t count);
/* Take note of asyncio's classes for that; of none that a program has replaced. */
void stream_learn_classes(StreamState *state);

/* buffered.c */
int stream_read_to_buffer(Stream *self);

/* info.c */
extern PyGetSetDef stream_getset[];
extern PyMemberDef stream_members[];
PyObject *stream_repr(PyObject *self);
PyObject *stream_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs);
int stream_set_extra(Stream *self, PyObject *extra);

/* methods.c */
PyTypeObject *stream_make_type(PyObject *module);

/* transport.c */
PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
int stream_init(PyObject *self, PyObject *args, PyObject *kwargs);
int stream_traverse(PyObject *self, visitproc visit, void *arg);
int stream_clear(PyObject *self);
void stream_dealloc(PyObject *self);
int stream_set_protocol_now(Stream *self, PyObject *protocol);

/* setup.c */
extern PyMethodDef stream_functions[];
int stream_setup(PyObject *module, StreamState *state);
int stream_traverse_state(const StreamState *state, visitproc visit, void *arg);
void stream_clear_state(StreamState *state);
void stream_free_state(StreamState *state);

#endif
