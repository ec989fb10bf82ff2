#include "aio/sockets.h"

#include "aio/override.h"

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

int
socket_fd(const AioState *state, PyObject *sock)
{
    PyObject *object = PyObject_CallMethodNoArgs(sock, state->fds.names[FDS_FILENO]);
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

bool
socket_has_own_methods(AioState *state)
{
    FdsState *fds = &state->fds;
    PyTypeObject *type = fds->socket_type;
    unsigned version = type != NULL ? override_version(type) : 0;
    if (version != 0 && version == fds->socket_version) {
        return true;
    }
    static const int used[] = {FDS_CONNECT, FDS_GETPEERNAME, FDS_GETSOCKNAME, FDS_GETSOCKOPT};
    bool own = type != NULL;
    for (size_t i = 0; own && i < sizeof(used) / sizeof(used[0]); i++) {
        PyObject *method = PyObject_GetAttr((PyObject *)type, fds->names[used[i]]);
        own = method != NULL && Py_IS_TYPE(method, &PyMethodDescr_Type);
        Py_XDECREF(method);
    }
    PyErr_Clear();
    fds->socket_version = own ? override_version(type) : 0;
    return own;
}
