/* The callbacks of sock_recv() and the like: the socket may be ready now. */
#ifndef PYEPOLL_ATTEMPT_H
#define PYEPOLL_ATTEMPT_H

#include "base/compat.h"

#define ATTEMPT_RECEIVE_DOC                                                                                  \
    "_recv_ready($module, future, sock, size, /)\n--\n\n"                                                    \
    "Give the future what _try_recv(sock, size) returns or raises, unless there is nothing yet."

#define ATTEMPT_RECEIVE_INTO_DOC                                                                             \
    "_recv_into_ready($module, future, sock, buffer, /)\n--\n\n"                                             \
    "Give the future what _try_recv_into(sock, buffer) returns or raises, unless there is nothing yet."

/* Vectorcall functions of the module. */
PyObject *attempt_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *attempt_receive_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
