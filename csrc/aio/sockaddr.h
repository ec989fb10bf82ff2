/* Addresses of IPv4 and IPv6 sockets, from the kernel's form to Python's and back. */
#ifndef PYEPOLL_AIO_SOCKADDR_H
#define PYEPOLL_AIO_SOCKADDR_H

#include "base/compat.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* An address of AF_INET or AF_INET6. */
typedef struct {
    socklen_t length; /* 0: none */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
} SockAddr;

/* The address as socket.recvfrom() gives it: a tuple, or None where the length is 0. A new reference; NULL
 * with an exception. */
PyObject *sockaddr_to_python(const SockAddr *address);

/* Read an address whose host is numeric: a plain tuple (host, port), for AF_INET6 with flowinfo and scope_id
 * if wanted. False for anything else, which socket.sendto() accepts or refuses. Sets no exception and runs no
 * Python code. */
bool sockaddr_from_python(PyObject *object, int family, SockAddr *address);

#endif
