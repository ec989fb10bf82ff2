/* The state of the stream transports in one interpreter. */
#ifndef PYEPOLL_AIO_STREAM_STATE_H
#define PYEPOLL_AIO_STREAM_STATE_H

#include "base/compat.h"

#include <stdatomic.h>

/* Names of attributes and methods that the transports use. */
enum {
    NAME_ADD_READER,
    NAME_ADD_WRITER,
    NAME_ATTACH,
    NAME_BUFFER,
    NAME_BUFFER_UPDATED,
    NAME_CALL_EXCEPTION_HANDLER,
    NAME_CALL_SOON,
    NAME_CANCEL_SENDFILE,
    NAME_CANCELLED,
    NAME_CHECK_THREAD,
    NAME_CLOSE,
    NAME_CONNECTION_LOST,
    NAME_CONNECTION_LOST_CALLBACK,
    NAME_CONNECTION_MADE,
    NAME_CONTEXT,
    NAME_CREATE_FUTURE,
    NAME_DATA_RECEIVED,
    NAME_DETACH,
    NAME_DONE,
    NAME_EOF,
    NAME_EOF_RECEIVED,
    NAME_EVENTS,
    NAME_FEED_DATA,
    NAME_FILENO,
    NAME_GET_BUFFER,
    NAME_GET_KEY,
    NAME_GET_DEBUG,
    NAME_GETPEERNAME,
    NAME_GETSOCKNAME,
    NAME_IS_CLOSED,
    NAME_LIMIT,
    NAME_MAYBE_PAUSE,
    NAME_MAYBE_RESUME,
    NAME_PEERNAME,
    NAME_PENDING_WRITES,
    NAME_PROTO,
    NAME_SELECTOR,
    NAME_READER_REFERENCE,
    NAME_READ_READY,
    NAME_RECV,
    NAME_RECV_INTO,
    NAME_REMOVE_READER,
    NAME_REMOVE_WRITER,
    NAME_SEND,
    NAME_SENDMSG,
    NAME_SET_EXCEPTION,
    NAME_SET_RESULT,
    NAME_SHUTDOWN,
    NAME_SOCKET,
    NAME_SOCKNAME,
    NAME_START_READING,
    NAME_STREAM_READER,
    NAME_WAITER,
    NAME_WAKEUP_WAITER,
    NAME_WRITE_READY,
    STREAM_NAMES
};

enum { STREAM_READER, READER_PROTOCOL, STREAM_CLASSES };

/* A class of asyncio's streams, and its parts at load: feed.c. */
typedef struct {
    PyTypeObject *type;    /* NULL if a program had replaced it, or the next ones */
    PyObject *method_name; /* borrowed from `names` */
    PyObject *method;      /* that data is passed to, ... */
    PyObject *code;        /* ... its code, ... */
    PyObject *helper_name;
    PyObject *helper;    /* ... and a part of the class that it uses */
    atomic_uint version; /* of the type, when it had this helper; 0: look again */
} StreamClass;

typedef struct {
    PyTypeObject *type;         /* SocketTransport */
    PyTypeObject *writes_type;  /* PendingWrites */
    PyTypeObject *socket_type;  /* socket.socket; NULL if that is not CPython's own */
    Py_ssize_t closed_offset;   /* of the attribute that says whether a socket is closed */
    PyObject *transport_socket; /* makes the result of get_extra_info("socket") */
    PyObject *buffered;         /* asyncio.BufferedProtocol */
    StreamClass classes[STREAM_CLASSES];
    PyTypeObject *future; /* _asyncio.Future; NULL if there is none */
    PyObject *logger;     /* asyncio's */
    PyObject *set_result; /* asyncio.futures._set_result_unless_cancelled */
    PyObject *minus_one;
    PyObject *low_water; /* the default limits of the write buffer */
    PyObject *high_water;
    PyObject *names[STREAM_NAMES];
    _Atomic(char *) spare; /* where data is received, when no thread has it */
} StreamState;

#endif
