/* write() of a pipe transport: the system call is tried at once, as in asyncio, and without the GIL. */
#include "aio/pipe/pipe.h"

#include "aio/sockop.h"

#include <unistd.h>

/* The fd if the transport is open and has nothing in its buffer; else -1. */
static int
fd_to_write_to(const PipeState *state, PyObject *self)
{
    int fd;
    Py_BEGIN_CRITICAL_SECTION(self);
    PyObject *buffer = aio_slot(self, state->write_slots[WRITE_BUFFER]);
    bool usual = aio_slot(self, state->write_slots[WRITE_CLOSING]) == Py_False &&
                 aio_slot(self, state->write_slots[WRITE_CONN_LOST]) == state->zero && buffer != NULL &&
                 PyByteArray_CheckExact(buffer) && PyByteArray_GET_SIZE(buffer) == 0;
    fd = usual ? pipe_fd(aio_slot(self, state->write_slots[WRITE_FD])) : -1;
    Py_END_CRITICAL_SECTION();
    return fd;
}

/* Whether asyncio accepts such data. */
static bool
is_data(PyObject *object)
{
    return PyBytes_CheckExact(object) || PyByteArray_CheckExact(object) || PyMemoryView_Check(object);
}

/* Write as much as the kernel accepts, and keep the rest. None, or NULL with an exception. */
static PyObject *
write_bytes(const PipeState *state, PyObject *self, int fd, const Py_buffer *view)
{
    ssize_t count;
    int error;
    Py_BEGIN_ALLOW_THREADS
    count = write(fd, view->buf, (size_t)view->len);
    error = count < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    if (count == view->len) {
        Py_RETURN_NONE;
    }
    if (count < 0 && !would_block(error)) {
        return pipe_failed(state, self, error);
    }
    count = count > 0 ? count : 0;
    PyObject *rest = PyByteArray_FromStringAndSize((const char *)view->buf + count, view->len - count);
    if (rest == NULL) {
        return pipe_failed(state, self, 0);
    }
    PyObject *result = PyObject_CallMethodOneArg(self, state->names[PIPE_KEEP], rest);
    Py_DECREF(rest);
    return result;
}

static PyObject *
write_slowly(const PipeState *state, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *method = PyObject_GetAttr(self, state->names[PIPE_WRITE_SLOWLY]);
    PyObject *result = method != NULL ? PyObject_Vectorcall(method, args, (size_t)count, names) : NULL;
    Py_XDECREF(method);
    return result;
}

PyObject *
pipe_write(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const AioState *aio = aio_state_of(Py_TYPE(self));
    if (aio == NULL) {
        return NULL;
    }
    const PipeState *state = &aio->pipe;
    bool usual = names == NULL && count == 1 && is_data(args[0]) && !pipe_call_is_replaced(aio, GLOBAL_WRITE);
    int fd = usual ? fd_to_write_to(state, self) : -1;
    Py_buffer view;
    if (fd < 0) {
        return write_slowly(state, self, args, count, names);
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear(); /* asyncio reports it in its way */
        return write_slowly(state, self, args, count, names);
    }
    PyObject *result = view.len == 0 ? Py_NewRef(Py_None) : write_bytes(state, self, fd, &view);
    PyBuffer_Release(&view);
    return result;
}
