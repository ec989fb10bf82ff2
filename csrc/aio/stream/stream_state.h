/* What the stream transports keep in one interpreter. */
#ifndef PYEPOLL_AIO_STREAM_STATE_H
#define PYEPOLL_AIO_STREAM_STATE_H

#include "base/compat.h"

#include <stdatomic.h>

/* Names of attributes and methods that the transports use. */
enum {
    ADD_READER,
    ADD_WRITER,
    ATTACH,
    BUFFER_UPDATED,
    CALL_EXCEPTION_HANDLER,
    CALL_SOON,
    CANCEL_SENDFILE,
    CHECK_THREAD,
    CLOSE,
    CONNECTION_LOST,
    CONNECTION_LOST_CALLBACK,
    CONNECTION_MADE,
    CONTEXT,
    CREATE_FUTURE,
    DATA_RECEIVED,
    DETACH,
    DONE,
    EOF_RECEIVED,
    FILENO,
    GET_BUFFER,
    GET_DEBUG,
    GETPEERNAME,
    GETSOCKNAME,
    MAYBE_PAUSE,
    MAYBE_RESUME,
    PEERNAME,
    PENDING_WRITES,
    PROTO,
    READ_READY,
    RECV,
    RECV_INTO,
    REMOVE_READER,
    REMOVE_WRITER,
    SEND,
    SET_EXCEPTION,
    SET_RESULT,
    SHUTDOWN,
    SOCKET,
    SOCKNAME,
    START_READING,
    WRITE_READY,
    STREAM_NAMES
};

typedef struct {
    PyTypeObject *type;         /* SocketTransport */
    PyTypeObject *writes_type;  /* PendingWrites */
    PyTypeObject *socket_type;  /* socket.socket; NULL if that is not CPython's own */
    Py_ssize_t closed_offset;   /* of the attribute that says whether a socket is closed */
    PyObject *transport_socket; /* makes the result of get_extra_info("socket") */
    PyObject *buffered;         /* asyncio.BufferedProtocol */
    PyObject *logger;           /* asyncio's */
    PyObject *set_result;       /* asyncio.futures._set_result_unless_cancelled */
    PyObject *minus_one;
    PyObject *low_water; /* the default limits of the write buffer */
    PyObject *high_water;
    PyObject *names[STREAM_NAMES];
    _Atomic(char *) spare; /* where data is received, when no thread has it */
} StreamState;

#endif
