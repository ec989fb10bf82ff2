/* loop.getaddrinfo() of numeric hosts and ports, without a thread. */
#ifndef PYEPOLL_ADDRESS_H
#define PYEPOLL_ADDRESS_H

#include "aio/loop.h"

/* Vectorcall: loop._find_addresses(host, port, family, type, proto, flags). */
PyObject *address_find(EventLoop *self, PyObject *const *args, Py_ssize_t nargs);

#endif
