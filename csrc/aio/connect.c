#include "aio/connect.h"

#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/sockop.h"

/* Whether the address is as asyncio's resolver returns it: then it is the one in the text of an error. */
static bool
read_address(PyObject *object, int family, SockAddr *address)
{
    return sockaddr_from_python(object, family, address) &&
           PyTuple_GET_SIZE(object) == (family == AF_INET ? 2 : 4);
}

PyObject *
connect_try(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const AioState *state = aio_state(module);
    PlainSocket plain;
    SockAddr address;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_try_connect() takes a socket and an address");
        return NULL;
    }
    if (!socket_is_plain(state, args[0], &plain) || !read_address(args[1], plain.family, &address)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    /* The hook may close the socket: see again which fd it has. */
    if (PySys_Audit("socket.connect", "OO", args[0], args[1]) < 0) {
        return NULL;
    }
    if (!socket_is_plain(state, args[0], &plain)) {
        errno = EBADF;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (connect(plain.fd, &address.any, address.length) == 0) {
        Py_RETURN_TRUE;
    }
    /* A connection to a listener on this machine is made already. Yet the caller waits for it, as for any
     * other: with no turn between many of them, a server of the same loop could accept none. */
    bool under_way = errno == EINPROGRESS || errno == EALREADY || would_block(errno);
    return under_way ? Py_NewRef(Py_False) : PyErr_SetFromErrno(PyExc_OSError);
}
