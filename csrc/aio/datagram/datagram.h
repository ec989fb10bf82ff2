/*
 * Receiving and sending of the datagram transport, for open IPv4 and IPv6 sockets of exactly socket.socket.
 * The Python class pyepoll._datagram.DatagramTransport, which is derived from the type in type.c, has the
 * methods for everything else: other sockets, a queue of datagrams that wait to be sent, closing.
 */
#ifndef PYEPOLL_AIO_DATAGRAM_H
#define PYEPOLL_AIO_DATAGRAM_H

#include "aio/result.h"
#include "aio/sockaddr.h"
#include "aio/sockop.h"
#include "aio/state.h"

#include <errno.h>

/* As much as asyncio asks for at a time: more than a datagram of IP can have. */
enum { DATAGRAM_MAX = 256 * 1024 };

/* Room for the slots of asyncio's classes, which the type is derived from. */
enum { INHERITED_SLOTS = 8 };

typedef struct {
    PyObject_HEAD
    PyObject *inherited[INHERITED_SLOTS];
    PyObject *sock;      /* None after connection_lost() */
    PyObject *protocol;  /* as sock */
    PyObject *address;   /* of remote_addr; None without one */
    struct {             /* of the data that waits to be sent */
        Py_ssize_t size; /* 8 bytes more for each datagram; 0: the queue is empty */
    } queue;
    struct {                 /* set once, by __init__(); max_size by the program */
        Py_ssize_t max_size; /* longer datagrams are cut off */
        int fd;
        int family;     /* AF_INET, AF_INET6; others are not for C */
        char connected; /* the socket has a peer in the kernel */
    } socket;
    struct {                  /* set by methods in Python */
        Py_ssize_t conn_lost; /* not 0: connection_lost() is scheduled */
        char closing;
        char paused;
    } state;
    unsigned char lone; /* how many of the next events receive one datagram each: datagram_read_ready() */
    struct { /* the sender of the last datagram: many come from one, and an answer goes to it (sender_of) */
        SockAddr raw;
        PyObject *object; /* as datagram_received() got it */
    } sender;
} Datagram;

extern PyType_Spec datagram_spec; /* type.c */

/* The state that the transports of the interpreter share; NULL with an exception. */
DatagramState *datagram_state(PyObject *self);

/* Whether C may use the fd: the socket is open, and not of a subclass, which may have methods of its own. */
bool datagram_is_plain(const DatagramState *state, const Datagram *self);

/* Pass an OSError to the protocol. None, or NULL with the exception that it raised. */
PyObject *datagram_report(const DatagramState *state, PyObject *protocol, int error);

/* Handle the exception that is set as asyncio does: it closes the transport. None, or NULL with an exception.
 */
PyObject *datagram_fail(const DatagramState *state, PyObject *self, const char *message);

/* Methods: receive.c, send.c. */
PyObject *datagram_read_ready(PyObject *self, PyObject *ignored);
PyObject *datagram_sendto(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

#endif
