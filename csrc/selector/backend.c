#include "selector/selector.h"

#include "base/convert.h"
#include "core/ctl.h"
#include "core/ready.h"
#include "selector/selector_key.h"

#include <limits.h>

void
backend_release(Backend *backend)
{
    Py_CLEAR(backend->object);
    Py_CLEAR(backend->instance);
}

int
backend_acquire(Selector *self, Backend *backend)
{
    guard_lock(&self->guard);
    backend->object = Py_XNewRef(self->backend);
    backend->instance = (Instance *)Py_XNewRef(self->instance);
    backend->direct = self->direct;
    guard_unlock(&self->guard);
    if (backend->object == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this selector has no '_selector': was __init__ called?");
        backend_release(backend);
        return -1;
    }
    return 0;
}

/* 0, or -1 with an exception, for the status of a call on the instance. */
static int
raise_if_closed(int status)
{
    if (status == IS_CLOSED) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    }
    return status == 0 ? 0 : -1;
}

/* The same for the result of a method of another backend. */
static int
check_result(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

int
backend_register(const Backend *backend, int fd, uint32_t mask, PyObject *key)
{
    return backend->direct
               ? raise_if_closed(ctl_register(backend->instance, fd, mask, key))
               : check_result(PyObject_CallMethod(backend->object, "register", "iIO", fd, mask, key));
}

int
backend_modify(const Backend *backend, int fd, uint32_t mask, PyObject *key)
{
    return backend->direct
               ? raise_if_closed(ctl_modify(backend->instance, fd, mask, key))
               : check_result(PyObject_CallMethod(backend->object, "modify", "iIO", fd, mask, key));
}

int
backend_replace(const Backend *backend, int fd, PyObject *key)
{
    return backend->instance != NULL ? raise_if_closed(ctl_replace_data(backend->instance, fd, key)) : 0;
}

int
backend_unregister(const Backend *backend, int fd)
{
    int status = backend->direct ? raise_if_closed(ctl_unregister(backend->instance, fd))
                                 : check_result(PyObject_CallMethod(backend->object, "unregister", "i", fd));
    if (status < 0 && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        status = 0;
    }
    return status;
}

uint32_t
backend_mask(const Backend *backend, int fd)
{
    uint32_t mask = 0;
    if (backend->instance != NULL) {
        STATE_LOCK(backend->instance);
        const Registration *present = interest_get(&backend->instance->list, fd);
        mask = present != NULL ? present->mask : 0;
        STATE_UNLOCK(backend->instance);
    }
    return mask;
}

/* The data of a registration: a new reference, or NULL without an exception. */
static inline PyObject *
registered_data(const Backend *backend, int fd)
{
    PyObject *data = NULL;
    if (backend->instance != NULL) {
        STATE_LOCK(backend->instance);
        const Registration *present = interest_get(&backend->instance->list, fd);
        data = present != NULL ? Py_NewRef(present->data) : NULL;
        STATE_UNLOCK(backend->instance);
    }
    return data;
}

/* Put `key` into the dict; if it is NULL, remove the present key. 0, or -1 with an exception. */
static int
put_key(Selector *self, PyObject *fd_object, PyObject *key)
{
    PyObject *before;
    int status = PyDict_GetItemRef(self->keys, fd_object, &before);
    if (status >= 0 && key != before) {
        status = key != NULL ? PyDict_SetItem(self->keys, fd_object, key)
                             : PyDict_Pop(self->keys, fd_object, NULL); /* may be gone already */
    }
    Py_XDECREF(before);
    return status < 0 ? -1 : 0;
}

/* A thread that was late with its write to the dict finds, when it looks again, that the registration is
 * another, and writes that. So the last write of all is that of the present registration:
 *
 *     one                         other
 *     reads registration A
 *                                 registers B, reads it, writes it; still B: done
 *     writes A; now it is B:
 *     writes B; still B: done
 */
int
backend_sync_keys(Selector *self, const Backend *backend, PyObject *fd_object, int fd, PyObject *otherwise)
{
    PyObject *data = registered_data(backend, fd);
    bool in_sync = false;
    int status = 0;
    while (status == 0 && !in_sync) {
        status = put_key(self, fd_object,
                         data != NULL && is_selector_key(self->module, data) ? data : otherwise);
        PyObject *present = registered_data(backend, fd);
        in_sync = present == data;
        Py_XDECREF(data);
        data = present;
    }
    Py_XDECREF(data);
    return status;
}

PyObject *
backend_pop_key(Selector *self, PyObject *fd_object)
{
    PyObject *key;
    bool found = PyDict_GetItemRef(self->keys, fd_object, &key) > 0 && is_selector_key(self->module, key);
    Py_XDECREF(key);
    key = NULL;
    return found && PyDict_Pop(self->keys, fd_object, &key) > 0 ? key : NULL;
}

/* Unregister `key`, unless another call has replaced it. 0, or -1 with an exception. */
static int
unregister_only(Selector *self, const Backend *backend, int fd, const PyObject *key)
{
    if (backend->direct) {
        return raise_if_closed(ctl_unregister_only(backend->instance, fd, key));
    }
    PyObject *data = registered_data(backend, fd);
    bool replaced = data != NULL && data != key && is_selector_key(self->module, data);
    Py_XDECREF(data);
    return replaced ? 0 : backend_unregister(backend, fd);
}

void
backend_undo(Selector *self, const Backend *backend, PyObject *fd_object, int fd, PyObject *key)
{
    PyObject *error = PyErr_GetRaisedException();
    if (unregister_only(self, backend, fd, key) < 0) {
        PyErr_Clear();
    }
    if (backend_sync_keys(self, backend, fd_object, fd, NULL) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(error);
}

void
backend_sync_after_failure(Selector *self, const Backend *backend, PyObject *fd_object, int fd,
                           const PyObject *seen)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *present;
    if (PyDict_GetItemRef(self->keys, fd_object, &present) < 0 ||
        (present == seen && backend_sync_keys(self, backend, fd_object, fd, NULL) < 0)) {
        PyErr_Clear();
    }
    Py_XDECREF(present);
    PyErr_SetRaisedException(error);
}

/* Call poll() of a backend that is not the package's. */
static PyObject *
call_poll(PyObject *backend, PyObject *object, int64_t timeout)
{
    PyObject *name = PyUnicode_FromString("poll");
    PyObject *zero = PyLong_FromLong(0);
    PyObject *list = NULL;
    if (name != NULL && zero != NULL) {
        list = PyObject_CallMethodOneArg(backend, name,
                                         timeout == NO_TIMEOUT ? Py_None
                                         : timeout == 0        ? zero
                                                               : object);
    }
    Py_XDECREF(zero);
    Py_XDECREF(name);
    return list;
}

/* Wait on the instance of the package's Epoll. The object itself is not used: it may be deallocated
 * meanwhile. */
static PyObject *
wait_on(Instance *instance, int64_t timeout)
{
    WaitRequest wait;
    wait.timeout = timeout;
    wait.deadline = timeout > 0 ? wait_deadline(timeout) : 0;
    wait.maxevents = INT_MAX;
    wait.masked = false;
    PyObject *list = ready_list(instance, &wait);
    if (list == NULL && !PyErr_Occurred()) {
        raise_if_closed(IS_CLOSED);
    }
    return list;
}

PyObject *
backend_wait(Selector *self, PyObject *object, int64_t timeout)
{
    guard_lock(&self->guard);
    Instance *instance = self->direct ? (Instance *)Py_NewRef(self->instance) : NULL;
    guard_unlock(&self->guard);
    if (instance != NULL) {
        PyObject *list = wait_on(instance, timeout);
        Py_DECREF(instance);
        return list;
    }
    Backend backend;
    if (backend_acquire(self, &backend) < 0) {
        return NULL;
    }
    PyObject *list = call_poll(backend.object, object, timeout);
    backend_release(&backend);
    return list;
}
