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

/* The error of a connection that was under way, in asyncio's words. */
static PyObject *
raise_failure(int error, PyObject *address)
{
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *object = text != NULL ? PyObject_CallFunction(PyExc_OSError, "iO", error, text) : NULL;
    if (object != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(object), object);
    }
    Py_XDECREF(text);
    Py_XDECREF(object);
    return NULL;
}

/* The connection is under way. To a listener of this machine it is made already, as a rule: to look costs less
 * than to let the loop wait. */
static PyObject *
look(int fd, PyObject *address)
{
    struct pollfd entry = {.fd = fd, .events = POLLOUT};
    if (poll(&entry, 1, 0) <= 0) {
        Py_RETURN_FALSE;
    }
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (error != 0) {
        return raise_failure(error, address);
    }
    Py_RETURN_TRUE;
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
    return errno == EINPROGRESS ? look(plain.fd, args[1])
           : would_block(errno) ? Py_NewRef(Py_False)
                                : PyErr_SetFromErrno(PyExc_OSError);
}
