/* connect() of a socket that does not wait, and says so without an exception. */
#ifndef PYEPOLL_CONNECT_H
#define PYEPOLL_CONNECT_H

#include "base/compat.h"

#define CONNECT_DOC                                                                                          \
    "_try_connect($module, sock, address, /)\n--\n\n"                                                        \
    "Return True if the socket is connected, False while that is under way; NotImplemented where asyncio\n"  \
    "has to do it: for a socket that is not plain, and for an address such as a host name.\n\n"              \
    "Raises the OSError of connect() for any other error."

PyObject *connect_try(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
