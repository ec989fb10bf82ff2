/* modify and unregister, where an fd may have been closed and reused. */
#include "selector/selector.h"

#include "base/flags.h"
#include "selector/selector_key.h"

#include <fcntl.h>

/* Whether a file object has this fd. 1, 0, or -1 with an exception of fileno(). */
static int
fileobj_has_fd(PyObject *fileobj, int fd)
{
    if (PyLong_Check(fileobj)) {
        return 1;
    }
    int now;
    PyObject *fd_object = fileobj_fd(fileobj, &now);
    if (fd_object == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear(); /* it is closed */
        return 0;
    }
    Py_XDECREF(fd_object);
    return fd_object != NULL ? now == fd : -1;
}

/* Whether the file object of a key still has the key's fd. */
static int
key_has_fd(PyObject *key, int fd)
{
    return fileobj_has_fd(PyTuple_GET_ITEM(key, KEY_FILEOBJ), fd);
}

/* Whether the key stands for the file that its fd refers to now. Where its file object does not, and that of
 * the caller does, the caller's becomes that of the key. 1, 0, or -1 with an exception. */
static int
names_present_file(const Selector *self, Change *change)
{
    int status = key_has_fd(change->old, change->fd);
    if (status == 0) {
        status = fileobj_has_fd(change->fileobj, change->fd);
        PyObject *key = change->key;
        PyObject *renamed = status > 0 ? selector_key_new(self->module, change->fileobj,
                                                          PyTuple_GET_ITEM(key, KEY_FD),
                                                          PyTuple_GET_ITEM(key, KEY_EVENTS),
                                                          PyTuple_GET_ITEM(key, KEY_DATA))
                                       : NULL;
        if (renamed != NULL) {
            Py_SETREF(change->key, renamed);
        }
        else if (status > 0) {
            status = -1;
        }
    }
    return status;
}

/* Take the key `old` out of the dict. 1; 0 where another call has replaced or unregistered it, and the dict
 * is left to that call; -1 with an exception. */
static int
take_key(Selector *self, const Change *change)
{
    PyObject *fd_object = PyTuple_GET_ITEM(change->key, KEY_FD);
    PyObject *taken = backend_pop_key(self, fd_object);
    int status = taken == change->old ? 1 : PyErr_Occurred() ? -1 : 0;
    if (taken != NULL && status == 0) {
        status = backend_sync_keys(self, change->backend, fd_object, change->fd, taken);
    }
    Py_XDECREF(taken);
    return status;
}

/* modify failed, because the fd does not refer to the registered file: register the file that it refers to.
 * If an unregister in another thread has taken the key, there is nothing left to modify. 0, or -1 with an
 * exception: the one of modify, unless a later call raised its own. */
static int
register_reused(Selector *self, Change *change)
{
    PyObject *error = PyErr_GetRaisedException();
    int status = names_present_file(self, change);
    if (status > 0) {
        status = take_key(self, change);
    }
    bool registers = status > 0;
    if (registers) {
        status = backend_register(change->backend, change->fd, change->mask, change->key);
        if (status < 0 && PyErr_ExceptionMatches(PyExc_FileExistsError)) {
            PyErr_Clear(); /* another thread has registered it */
            registers = false;
            status = 0;
        }
    }
    if (status == 0 && !registers) {
        PyErr_SetRaisedException(error);
        return -1;
    }
    Py_DECREF(error);
    return status;
}

int
change_retry(Selector *self, Change *change)
{
    return change->backend->instance != NULL && PyErr_ExceptionMatches(PyExc_FileNotFoundError)
               ? register_reused(self, change)
               : -1;
}

/* Whether a call has raised OSError because the fd is closed. */
static bool
failed_for_closed_fd(int fd)
{
    return PyErr_ExceptionMatches(PyExc_OSError) && fcntl(fd, F_GETFD) < 0;
}

/* The kernel refuses to modify a registration with EXCLUSIVE. It refuses to register it once more, too,
 * unless the fd refers to another file. */
static int
register_or_replace(const Change *change)
{
    int status = key_has_fd(change->old, change->fd);
    if (status > 0) {
        status = backend_register(change->backend, change->fd, change->mask, change->key);
        if (status == 0) {
            return 0;
        }
        if (PyErr_ExceptionMatches(PyExc_FileExistsError) || failed_for_closed_fd(change->fd)) {
            PyErr_Clear();
            status = 0;
        }
    }
    return status == 0 ? backend_replace(change->backend, change->fd, change->key) : -1;
}

int
change_data(Selector *self, Change *change, PyObject **otherwise)
{
    if (change->backend->instance == NULL) {
        /* No Epoll: as in selectors, whose calls do not have the data. */
        return 0;
    }
    if ((change->mask & EPOLLEXCLUSIVE) != 0) {
        *otherwise = change->key;
        return register_or_replace(change);
    }
    int status = backend_modify(change->backend, change->fd, change->mask, change->key);
    if (status < 0) {
        status = change_retry(self, change);
    }
    if (status < 0 && failed_for_closed_fd(change->fd)) {
        PyErr_Clear();
        *otherwise = change->key;
        status = 0;
    }
    return status;
}

PyObject *
object_fd(Selector *self, PyObject *fileobj, int *fd)
{
    PyObject *fd_object = fileobj_fd_or_registered(self->module, self->keys, fileobj, fd);
    if (fd_object == NULL || !atomic_load_explicit(&self->has_objects, memory_order_relaxed)) {
        return fd_object;
    }
    PyObject *key, *other = NULL;
    int found = PyDict_GetItemRef(self->keys, fd_object, &key);
    if (found > 0 && is_selector_key(self->module, key) && PyTuple_GET_ITEM(key, KEY_FILEOBJ) != fileobj) {
        other = registered_fd(self->module, self->keys, fileobj);
    }
    Py_XDECREF(key);
    if (found < 0 || PyErr_Occurred()) {
        Py_CLEAR(fd_object);
    }
    else if (other != NULL) {
        *fd = -1;
        Py_SETREF(fd_object, other);
    }
    return fd_object;
}
