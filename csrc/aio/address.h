/* loop.getaddrinfo() of numeric hosts and ports, without a thread. */
#ifndef PYEPOLL_ADDRESS_H
#define PYEPOLL_ADDRESS_H

#include "base/compat.h"

#define ADDRESS_DOC                                                                                          \
    "_find_addresses($module, templates, getaddrinfo, host, port, family, type, proto, flags, /)\n--\n\n"    \
    "What getaddrinfo() returns for a numeric address and port; None where it has to be called. templates "  \
    "is\n"                                                                                                   \
    "a dict in which its results are kept."

PyObject *address_find(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
