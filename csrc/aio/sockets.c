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
    /* Unless another thread has changed the class meanwhile. */
    fds->fileno_version = own && type_version(fds->socket_type) == version ? version : 0;
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

/* Whether an attribute of socket.socket is a method of its base in C, or a function of the module socket. */
static bool
is_own(const FdsState *fds, PyObject *method)
{
    if (!PyFunction_Check(method)) {
        return Py_IS_TYPE(method, &PyMethodDescr_Type);
    }
    PyObject *name = NULL;
    bool own = PyDict_GetItemRef(PyFunction_GET_GLOBALS(method), fds->names[FDS_NAME], &name) > 0 &&
               PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "socket") == 0;
    Py_XDECREF(name);
    return own;
}

bool
socket_has_own_methods(AioState *state)
{
    static const int used[] = {FDS_CLOSE,      FDS_CONNECT, FDS_GETPEERNAME, FDS_GETSOCKNAME,
                               FDS_GETSOCKOPT, FDS_INIT,    FDS_REAL_CLOSE,  FDS_SETBLOCKING};
    FdsState *fds = &state->fds;
    PyTypeObject *type = fds->socket_type;
    unsigned version = type != NULL ? type_version(type) : 0;
    if (version != 0 && version == fds->socket_version) {
        return true;
    }
    bool own = type != NULL && fds->socket_close != NULL;
    for (size_t i = 0; own && i < sizeof(used) / sizeof(used[0]); i++) {
        PyObject *method = PyObject_GetAttr((PyObject *)type, fds->names[used[i]]);
        own = method != NULL && is_own(fds, method);
        Py_XDECREF(method);
    }
    PyErr_Clear();
    /* As in has_own_fileno(). */
    fds->socket_version = own && type_version(type) == version ? version : 0;
    return own;
}

/* What socket.socket.__init__() does. 0, or -1 with an exception. */
static int
init_directly(const FdsState *fds, PyObject *sock, PyObject *args)
{
    return fds->socket_type->tp_base->tp_init(sock, args, NULL) == 0 &&
                   PyObject_SetAttr(sock, fds->names[FDS_IO_REFS], fds->zero) == 0
               ? PyObject_SetAttr(sock, fds->names[FDS_CLOSED], Py_False)
               : -1;
}

PyObject *
socket_make(AioState *state, const PlainSocket *made, bool *owned)
{
    const FdsState *fds = &state->fds;
    PyTypeObject *type = fds->socket_type;
    *owned = false;
    PyObject *args = made->fd >= 0 ? Py_BuildValue("iiii", made->family, made->type, made->proto, made->fd)
                                   : Py_BuildValue("iii", made->family, made->type, made->proto);
    PyObject *none = args != NULL ? PyTuple_New(0) : NULL;
    PyObject *sock = none != NULL ? type->tp_new(type, none, NULL) : NULL;
    int status = sock == NULL                    ? -1
                 : socket_has_own_methods(state) ? init_directly(fds, sock, args)
                                                 : type->tp_init(sock, args, NULL);
    Py_XDECREF(none);
    Py_XDECREF(args);
    if (status < 0 && sock != NULL) {
        PyObject *error = PyErr_GetRaisedException();
        *owned = socket_fd(state, sock) == made->fd;
        PyErr_Clear();
        Py_CLEAR(sock);
        PyErr_SetRaisedException(error);
    }
    return sock;
}

int
socket_close(AioState *state, PyObject *sock)
{
    const FdsState *fds = &state->fds;
    PyObject *result;
    if (Py_IS_TYPE(sock, fds->socket_type) && socket_has_own_methods(state) &&
        aio_slot(sock, fds->io_refs_offset) == fds->zero) {
        /* As socket.socket.close() where no file object of makefile() is open. */
        result = PyObject_SetAttr(sock, fds->names[FDS_CLOSED], Py_True) == 0
                     ? PyObject_CallOneArg(fds->socket_close, sock)
                     : NULL;
    }
    else {
        result = PyObject_CallMethodNoArgs(sock, fds->names[FDS_CLOSE]);
    }
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

void
socket_close_after_error(AioState *state, PyObject *sock)
{
    PyObject *error = PyErr_GetRaisedException();
    if (socket_close(state, sock) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(error);
}
