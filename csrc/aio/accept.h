/* accept() of a listening socket that does not wait, and says so without an exception. */
#ifndef PYEPOLL_ACCEPT_H
#define PYEPOLL_ACCEPT_H

#include "aio/sockets.h"

#define ACCEPT_DOC                                                                                           \
    "_try_accept($module, sock, /)\n--\n\n"                                                                  \
    "Return (connection, address), the connection non-blocking; None where there is none yet;\n"             \
    "NotImplemented for a socket that is not plain, which asyncio accepts from.\n\n"                         \
    "Raises the OSError of accept(), and the exception of an audit hook."

PyObject *accept_try(PyObject *module, PyObject *sock);

/* The same for a socket that socket_is_plain() has read. */
PyObject *accept_from(AioState *state, const PlainSocket *listener);

#endif
