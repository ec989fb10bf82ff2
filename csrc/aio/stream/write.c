/* write(), writelines() and write_eof(). */
#include "aio/stream/stream.h"

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
enum { LOST_WRITES_BEFORE_WARNING = 5 };

/* 0, or -1 with an exception where asyncio refuses data. */
static int
may_write(Stream *self, const char *name)
{
    if (self->eof) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", name);
        return -1;
    }
    if (is_given(self->empty_waiter)) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", name);
        return -1;
    }
    return 0;
}

/* The connection is lost: count, and warn from some time on. */
static int
ignore_write(Stream *self)
{
    if (self->conn_lost++ < LOST_WRITES_BEFORE_WARNING) {
        return 0;
    }
    return status_of(
        PyObject_CallMethod(stream_state(self)->logger, "warning", "s", "socket.send() raised exception."));
}

/* The data as it is now: exact bytes, a new reference. A bytearray may be reused, and a memoryview's
 * memory. */
static PyObject *
bytes_of(PyObject *data)
{
    return PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
}

/* The queue has more data: send it, or leave it to the end of the turn or to the writer. */
static int
go_on(Stream *self)
{
    if (self->writing || self->sending) {
        return stream_maybe_pause(self);
    }
    return stream_gathers(self) ? 0 : stream_flush(self);
}

/* In debug mode a write in a wrong thread raises; where data is gathered, the thread is right. */
static int
check_thread(Stream *self)
{
    PendingWrites *writes = self->writes;
    bool right = writes != NULL && writes->thread == PyThread_get_thread_ident();
    return right ? 0 : stream_check_thread(self);
}

static int
append(Stream *self, PyObject *data)
{
    int status;
    Py_BEGIN_CRITICAL_SECTION(self);
    status = queue_append(&self->queue, data);
    Py_END_CRITICAL_SECTION();
    return status;
}

/* Make room for all parts: they are accepted, or none is. */
static int
reserve(Stream *self, PyObject *parts)
{
    int status;
    Py_BEGIN_CRITICAL_SECTION(self);
    status = queue_reserve(&self->queue, PyList_GET_SIZE(parts));
    Py_END_CRITICAL_SECTION();
    return status;
}

/* As __name__: without the module. */
static const char *
short_name(PyTypeObject *type)
{
    const char *dot = strrchr(type->tp_name, '.');
    return dot != NULL ? dot + 1 : type->tp_name;
}

PyObject *
stream_write(PyObject *object, PyObject *data)
{
    Stream *self = (Stream *)object;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
#if PY_VERSION_HEX >= 0x030E0000
        return PyErr_Format(PyExc_TypeError,
                            "data argument must be a bytes, bytearray, or memoryview object, not '%s'",
#else
        return PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%s'",
#endif
                            short_name(Py_TYPE(data)));
    }
    if (may_write(self, "write") < 0) {
        return NULL;
    }
    PyObject *bytes = bytes_of(data);
    int status = bytes != NULL ? 0 : -1;
    if (status == 0 && PyBytes_GET_SIZE(bytes) > 0) {
        status = check_thread(self);
        if (status == 0) {
            status = self->conn_lost > 0 ? ignore_write(self) : append(self, bytes) < 0 ? -1 : go_on(self);
        }
    }
    Py_XDECREF(bytes);
    return none_or_error(status);
}

/* All parts as exact bytes, in a new list: nothing is written if one of them is wrong. */
static PyObject *
parts_of(PyObject *list)
{
    PyObject *parts = PySequence_List(list);
    for (Py_ssize_t i = 0; parts != NULL && i < PyList_GET_SIZE(parts); i++) {
        PyObject *part = PyList_GET_ITEM(parts, i);
        PyObject *bytes = NULL;
        if (PyObject_CheckBuffer(part)) {
            bytes = bytes_of(part);
        }
        else {
            PyErr_Format(PyExc_TypeError, "memoryview: a bytes-like object is required, not '%.200s'",
                         Py_TYPE(part)->tp_name);
        }
        if (bytes == NULL || PyList_SetItem(parts, i, bytes) < 0) {
            Py_CLEAR(parts);
        }
    }
    return parts;
}

static int
write_parts(Stream *self, PyObject *parts)
{
    if (PyList_GET_SIZE(parts) == 0) {
        return 0;
    }
    if (check_thread(self) < 0) {
        return -1;
    }
    if (self->conn_lost > 0) {
        return ignore_write(self);
    }
    if (reserve(self, parts) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parts); i++) {
        PyObject *part = PyList_GET_ITEM(parts, i);
        if (PyBytes_GET_SIZE(part) > 0 && append(self, part) < 0) {
            return -1;
        }
    }
    return self->queue.count > 0 ? go_on(self) : 0;
}

PyObject *
stream_writelines(PyObject *object, PyObject *list)
{
    Stream *self = (Stream *)object;
    if (may_write(self, "writelines") < 0) {
        return NULL;
    }
    PyObject *parts = parts_of(list);
    int status = parts != NULL ? write_parts(self, parts) : -1;
    Py_XDECREF(parts);
    return none_or_error(status);
}

PyObject *
stream_write_eof(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (self->closing || self->eof) {
        Py_RETURN_NONE;
    }
    self->eof = 1;
    if (stream_flush(self) < 0) {
        return NULL;
    }
    return none_or_error(self->queue.count == 0 && !self->closing ? stream_shutdown(self) : 0);
}
