#include "aio/accept.h"

#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/sockop.h"

#include <unistd.h>

/* The socket object of an accepted connection. Takes over the fd. NULL with an exception. */
static PyObject *
make_socket(const AioState *state, const PlainSocket *listener, int fd)
{
    PyTypeObject *type = state->fds.socket_type;
    PyObject *args = Py_BuildValue("iiii", listener->family, listener->type | SOCK_NONBLOCK, listener->proto,
                                   fd);
    PyObject *none = args != NULL ? PyTuple_New(0) : NULL;
    PyObject *sock = none != NULL ? type->tp_new(type, none, NULL) : NULL;
    Py_XDECREF(none);
    if (sock != NULL && type->tp_init(sock, args, NULL) == 0) {
        Py_DECREF(args);
        return sock;
    }
    /* An audit hook may have refused it, or a signal's handler: before or after the object had the fd. */
    PyObject *error = PyErr_GetRaisedException();
    bool owned = sock != NULL && socket_fd(state, sock) == fd;
    PyErr_Clear();
    if (!owned) {
        close(fd);
    }
    Py_XDECREF(sock);
    Py_XDECREF(args);
    PyErr_SetRaisedException(error);
    return NULL;
}

static PyObject *
make_result(const AioState *state, const PlainSocket *listener, int fd, const SockAddr *address)
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
    const AioState *state = aio_state(module);
    PlainSocket listener;
    if (!socket_is_plain(state, sock, &listener)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    SockAddr address = {.length = sizeof(address.v6)};
    int fd = accept4(listener.fd, &address.any, &address.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd >= 0 ? make_result(state, &listener, fd, &address) : sockop_failure(errno);
}
