#include "aio/sockets.h"

#include "aio/type_version.h"

#include <limits.h>
#include <sys/socket.h>

/* An attribute that is an int. False, without an exception, where it is not. */
static bool
read_int(PyObject *sock, PyObject *descriptor, int *value)
{
    PyObject *object = descriptor != NULL && Py_TYPE(descriptor)->tp_descr_get != NULL
                           ? Py_TYPE(descriptor)->tp_descr_get(descriptor, sock, (PyObject *)Py_TYPE(sock))
                           : NULL;
    long number = object != NULL && PyLong_Check(object) ? PyLong_AsLong(object) : -1;
    Py_XDECREF(object);
    *value = (int)number;
    return number >= 0 && number <= INT_MAX;
}

/* Whether the timeout is 0. */
static bool
never_blocks(const FdsState *state, PyObject *sock)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(sock, state->names[FDS_GETTIMEOUT]);
    bool zero = timeout != NULL && PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0;
    Py_XDECREF(timeout);
    return zero;
}

/* Whether socket.socket has the fileno() that was found at load. */
static bool
has_own_fileno(const AioState *state)
{
    FdsState *fds = &aio_of(state->owner)->fds;
    unsigned version = type_version(fds->socket_type);
    if (version != 0 && version == fds->fileno_version) {
        return true;
    }
    PyObject *method = PyObject_GetAttr((PyObject *)fds->socket_type, fds->names[FDS_FILENO]);
    bool own = method != NULL && method == fds->socket_fileno;
    Py_XDECREF(method);
    PyErr_Clear();
    fds->fileno_version = own ? type_version(fds->socket_type) : 0;
    return own;
}

PyObject *
socket_fileno(const AioState *state, PyObject *sock)
{
    if (Py_IS_TYPE(sock, state->fds.socket_type) && has_own_fileno(state)) {
        /* Without a look-up: this is called several times for each change of a reader. */
        return ((PyMethodDescrObject *)state->fds.socket_fileno)->d_method->ml_meth(sock, NULL);
    }
    return PyObject_CallMethodNoArgs(sock, state->fds.names[FDS_FILENO]);
}

int
socket_fd(const AioState *state, PyObject *sock)
{
    PyObject *object = socket_fileno(state, sock);
    long number = object != NULL ? PyLong_AsLong(object) : -1;
    Py_XDECREF(object);
    return number >= 0 && number <= INT_MAX ? (int)number : -1;
}

bool
socket_is_plain(const AioState *state, PyObject *sock, PlainSocket *plain)
{
    const FdsState *fds = &state->fds;
    bool usable = Py_IS_TYPE(sock, fds->socket_type) && read_int(sock, fds->socket_family, &plain->family) &&
                  (plain->family == AF_INET || plain->family == AF_INET6) &&
                  read_int(sock, fds->socket_kind, &plain->type) &&
                  read_int(sock, fds->socket_proto, &plain->proto) && never_blocks(fds, sock) &&
                  (plain->fd = socket_fd(state, sock)) >= 0;
    PyErr_Clear();
    return usable;
}
