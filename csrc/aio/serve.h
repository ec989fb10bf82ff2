/* Connections that a server accepts: their transports, made without a task for each. */
#ifndef PYEPOLL_SERVE_H
#define PYEPOLL_SERVE_H

#include "aio/loop.h"

#define SERVE_READY_DOC                                                                                      \
    "_serve_ready($self, factory, sock, server, limit, context, /)\n--\n\n"                                  \
    "Accept at most limit connections, and make their transports in the next turn, each in a copy of\n"      \
    "context, or of the current one if it is None.\n\n"                                                      \
    "Returns False where asyncio has to do it: in debug mode, with a task factory, where a step has been\n"  \
    "replaced, and for a socket that is not plain. Raises the OSError of accept()."

#define SERVE_DOC                                                                                            \
    "_serve($self, factory, sock, peername, server, context, /)\n--\n\n"                                     \
    "Make the transport of an accepted connection."

/* Vectorcall methods of the loop. */
PyObject *serve_ready(EventLoop *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *serve(EventLoop *self, PyObject *const *args, Py_ssize_t nargs);

#endif
