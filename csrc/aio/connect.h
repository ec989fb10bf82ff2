/* Connections that are made: connect() of a socket, and create_connection() to a numeric address. */
#ifndef PYEPOLL_CONNECT_H
#define PYEPOLL_CONNECT_H

#include "aio/loop.h"

#define CONNECT_DOC                                                                                          \
    "_try_connect($module, sock, address, /)\n--\n\n"                                                        \
    "Return True if the socket is connected, False while that is under way; NotImplemented where asyncio\n"  \
    "has to do it: for a socket that is not plain, and for an address such as a host name.\n\n"              \
    "Raises the OSError of connect() for any other error."

#define CONNECT_OPEN_DOC                                                                                     \
    "_open_connection($self, host, port, /)\n--\n\n"                                                         \
    "Connect a new socket to a numeric host and an int. Returns (sock, fd, future, handle): the future of\n" \
    "the connection and the writer that waits for it; None for both, or the writer, if it is made.\n\n"      \
    "Returns None where asyncio has to do it: for a name, in debug mode, and where a step of\n"              \
    "create_connection() has been replaced.\n\n"                                                             \
    "Raises the OSError of socket() or connect(), and the exception of an audit hook."

#define CONNECT_DONE_DOC                                                                                     \
    "_connection_done($self, future, sock, address, /)\n--\n\n"                                              \
    "Give the future the outcome of a connect() that was under way."

PyObject *connect_try(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* Vectorcall methods of the loop. */
PyObject *connect_open(EventLoop *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *connect_done(EventLoop *self, PyObject *const *args, Py_ssize_t nargs);

#endif
