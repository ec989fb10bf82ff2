/* What the files about sockets read from a socket.socket, without its properties in Python. */
#ifndef PYEPOLL_SOCKETS_H
#define PYEPOLL_SOCKETS_H

#include "aio/state.h"

/* A non-blocking IPv4 or IPv6 socket. */
typedef struct {
    int fd;
    int family;
    int type;
    int proto;
} PlainSocket;

/* sock.fileno() of any object: a new reference, or NULL with an exception. */
PyObject *socket_fileno(const AioState *state, PyObject *sock);

/* sock.fileno(): -1 for a closed socket, without an exception; -1 with an exception if the method fails. */
int socket_fd(const AioState *state, PyObject *sock);

/* Read a socket. True; false, without an exception, for one that is left to asyncio's code: it is of another
 * class or family, it may block, or it is closed. */
bool socket_is_plain(const AioState *state, PyObject *sock, PlainSocket *plain);

/* Whether socket.socket still has the methods that C does not call: a program may have replaced one, to
 * refuse connections or to count them, for example. */
bool socket_has_own_methods(AioState *state);

/* socket.socket(family, type, proto, fileno), or without fileno if `fd` is -1: a new reference, or NULL with
 * an exception. A failure leaves the fd open, or has given it to an object that was freed, and has closed it:
 * `*owned` says so. */
PyObject *socket_make(AioState *state, const PlainSocket *made, bool *owned);

/* sock.close(). 0, or -1 with an exception. */
int socket_close(AioState *state, PyObject *sock);

/* The same with an exception that is set, which stays. */
void socket_close_after_error(AioState *state, PyObject *sock);

#endif
