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

/* sock.fileno(): -1 for a closed socket, without an exception; -1 with an exception if the method fails. */
int socket_fd(const AioState *state, PyObject *sock);

/* Read a socket. True; false, without an exception, for one that is left to asyncio's code: it is of another
 * class or family, it may block, or it is closed. */
bool socket_is_plain(const AioState *state, PyObject *sock, PlainSocket *plain);

/* Whether socket.socket still has its methods in C: a program may have replaced one, to refuse connections or
 * to count them, for example. */
bool socket_has_own_methods(AioState *state);

#endif
