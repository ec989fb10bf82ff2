#include "aio/sockop.h"

#include "aio/sockets.h"

#include <errno.h>
#include <sys/socket.h>

/* Copying more than this takes so long that other threads may run meanwhile. */
enum { LARGE = 65536 };

/* So much is received into the stack. */
enum { SMALL = 4096 };

static ssize_t
receive_now(int fd, char *buffer, Py_ssize_t size)
{
    ssize_t count;
    if (size <= LARGE) {
        return recv(fd, buffer, (size_t)size, MSG_DONTWAIT);
    }
    Py_BEGIN_ALLOW_THREADS
    count = recv(fd, buffer, (size_t)size, MSG_DONTWAIT);
    Py_END_ALLOW_THREADS
    return count;
}

static ssize_t
send_now(int fd, const Py_buffer *view)
{
    ssize_t count;
    if (view->len <= LARGE) {
        return send(fd, view->buf, (size_t)view->len, MSG_DONTWAIT);
    }
    Py_BEGIN_ALLOW_THREADS
    count = send(fd, view->buf, (size_t)view->len, MSG_DONTWAIT);
    Py_END_ALLOW_THREADS
    return count;
}

PyObject *
sockop_failure(int error)
{
    if (would_block(error)) {
        Py_RETURN_NONE;
    }
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Receive into the stack: there may be nothing, or less than `size`, to make an object for. */
static PyObject *
receive_small(int fd, Py_ssize_t size)
{
    char buffer[SMALL];
    ssize_t count = receive_now(fd, buffer, size);
    return count >= 0 ? PyBytes_FromStringAndSize(buffer, count) : sockop_failure(errno);
}

static PyObject *
receive_large(int fd, Py_ssize_t size)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        return NULL;
    }
    ssize_t count = receive_now(fd, PyBytes_AS_STRING(data), size);
    if (count >= 0) {
        if (count < size) {
            Py_SETREF(data, PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), count));
        }
        return data;
    }
    int error = errno;
    Py_DECREF(data);
    return sockop_failure(error);
}

PyObject *
sockop_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size = nargs == 2 ? PyNumber_AsSsize_t(args[1], PyExc_OverflowError) : -1;
    if (size < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        }
        return NULL;
    }
    if (size == 0) {
        return PyBytes_FromStringAndSize(NULL, 0); /* as socket.recv(), which makes no system call */
    }
    int fd = socket_fd(aio_state(module), args[0]);
    if (fd < 0 && PyErr_Occurred()) {
        return NULL;
    }
    return size <= SMALL ? receive_small(fd, size) : receive_large(fd, size);
}

PyObject *
sockop_receive_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer view;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_try_recv_into() takes a socket and a buffer");
        return NULL;
    }
    if (!PyArg_Parse(args[1], "w*:recv_into", &view)) {
        return NULL;
    }
    /* After the buffer: its class may have closed the socket. */
    int fd = socket_fd(aio_state(module), args[0]);
    ssize_t count = -1;
    int error = 0;
    if (!PyErr_Occurred()) {
        count = view.len > 0 ? receive_now(fd, view.buf, view.len) : 0;
        error = errno;
    }
    PyBuffer_Release(&view);
    if (count >= 0) {
        return PyLong_FromSsize_t(count);
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    return sockop_failure(error);
}

PyObject *
sockop_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer view;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_try_send() takes a socket and data");
        return NULL;
    }
    int fd = socket_fd(aio_state(module), args[0]);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[1], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    ssize_t count = send_now(fd, &view);
    int error = errno;
    PyBuffer_Release(&view);
    if (count < 0 && would_block(error)) {
        count = 0;
    }
    if (count < 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromSsize_t(count);
}
