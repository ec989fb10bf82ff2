#include "aio/accept.h"

#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/sockop.h"

#include <unistd.h>

/* The socket object of an accepted connection. Takes over the fd. NULL with an exception. */
static PyObject *
make_socket(AioState *state, const PlainSocket *listener, int fd)
{
    const PlainSocket made = {fd, listener->family, listener->type | SOCK_NONBLOCK, listener->proto};
    bool owned;
    PyObject *sock = socket_make(state, &made, &owned);
    /* An audit hook may have refused it, or a signal's handler: before or after the object had the fd. */
    if (sock == NULL && !owned) {
        close(fd);
    }
    return sock;
}

static PyObject *
make_result(AioState *state, const PlainSocket *listener, int fd, const SockAddr *address)
{
    PyObject *sock = make_socket(state, listener, fd);
    PyObject *peer = sock != NULL ? sockaddr_to_python(address) : NULL;
    PyObject *result = peer != NULL ? PyTuple_Pack(2, sock, peer) : NULL;
    Py_XDECREF(sock);
    Py_XDECREF(peer);
    return result;
}

PyObject *
accept_try(PyObject *module, PyObject *sock)
{
    AioState *state = aio_state(module);
    PlainSocket listener;
    if (!socket_is_plain(state, sock, &listener)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    return accept_from(state, &listener);
}

PyObject *
accept_from(AioState *state, const PlainSocket *listener)
{
    SockAddr address = {.length = sizeof(address.v6)};
    int fd = accept4(listener->fd, &address.any, &address.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd >= 0 ? make_result(state, listener, fd, &address) : sockop_failure(errno);
}
