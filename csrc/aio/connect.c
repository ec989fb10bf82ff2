#include "aio/connect.h"

#include "aio/sockaddr.h"
#include "aio/sockets.h"
#include "aio/sockop.h"

#include <poll.h>

/* Whether the address is as asyncio's resolver returns it: then it is the one in the text of an error. */
static bool
read_address(PyObject *object, int family, SockAddr *address)
{
    return sockaddr_from_python(object, family, address) &&
           PyTuple_GET_SIZE(object) == (family == AF_INET ? 2 : 4);
}

/* Whether a connection that is under way has been made already, as one to a listener on this machine is: poll()
 * costs less than a turn of the loop. A failed connection is left to the loop, which reports the error. */
static bool
is_made(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLOUT};
    return poll(&entry, 1, 0) == 1 && entry.revents == POLLOUT;
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
    if (errno == EINPROGRESS || errno == EALREADY) {
        return PyBool_FromLong(is_made(plain.fd));
    }
    return would_block(errno) ? Py_NewRef(Py_False) : PyErr_SetFromErrno(PyExc_OSError);
}
