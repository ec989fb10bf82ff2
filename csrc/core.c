#include "selector.h"

#include "convert.h"
#include "core/ctl.h"
#include "key.h"
#include "ready.h"

#include <limits.h>

void
core_drop(Core *core)
{
    Py_CLEAR(core->object);
    Py_CLEAR(core->instance);
}

int
core_take(Selector *self, Core *core)
{
    guard_lock(&self->guard);
    core->object = Py_XNewRef(self->core);
    core->instance = (Instance *)Py_XNewRef(self->instance);
    core->direct = self->direct;
    guard_unlock(&self->guard);
    if (core->object == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this selector has no '_selector': was __init__ called?");
        core_drop(core);
        return -1;
    }
    return 0;
}

/* 0, or -1 with an exception, for what a call on the instance says. */
static int
told(int status)
{
    if (status == IS_CLOSED) {
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    }
    return status == 0 ? 0 : -1;
}

/* The same for what a method of another core returned. */
static int
called(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

int
core_register(const Core *core, int fd, uint32_t mask, PyObject *key)
{
    return core->direct ? told(ctl_register(core->instance, fd, mask, key))
                        : called(PyObject_CallMethod(core->object, "register", "iIO", fd, mask, key));
}

int
core_modify(const Core *core, int fd, uint32_t mask, PyObject *key)
{
    return core->direct ? told(ctl_modify(core->instance, fd, mask, key))
                        : called(PyObject_CallMethod(core->object, "modify", "iIO", fd, mask, key));
}

int
core_replace(const Core *core, int fd, PyObject *key)
{
    return core->instance != NULL ? told(ctl_replace_data(core->instance, fd, key)) : 0;
}

int
core_unregister(const Core *core, int fd)
{
    int status = core->direct ? told(ctl_unregister(core->instance, fd))
                              : called(PyObject_CallMethod(core->object, "unregister", "i", fd));
    if (status < 0 && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        status = 0;
    }
    return status;
}

uint32_t
core_mask(const Core *core, int fd)
{
    uint32_t mask = 0;
    if (core->instance != NULL) {
        STATE_LOCK(core->instance);
        const Registration *present = interest_get(&core->instance->list, fd);
        mask = present != NULL ? present->mask : 0;
        STATE_UNLOCK(core->instance);
    }
    return mask;
}

/* What a registration has for data: a new reference, or NULL without an exception. */
static inline PyObject *
registered_data(const Core *core, int fd)
{
    PyObject *data = NULL;
    if (core->instance != NULL) {
        STATE_LOCK(core->instance);
        const Registration *present = interest_get(&core->instance->list, fd);
        data = present != NULL ? Py_NewRef(present->data) : NULL;
        STATE_UNLOCK(core->instance);
    }
    return data;
}

/* Put `key` into the dict, or for NULL take out what is there. 0, or -1 with an exception. */
static int
put_key(Selector *self, PyObject *number, PyObject *key)
{
    PyObject *before;
    int status = PyDict_GetItemRef(self->keys, number, &before);
    if (status >= 0 && key != before) {
        status = key != NULL ? PyDict_SetItem(self->keys, number, key)
                             : PyDict_Pop(self->keys, number, NULL); /* gone by now is as good */
    }
    Py_XDECREF(before);
    return status < 0 ? -1 : 0;
}

/* A thread that was late with its write to the dict finds, when it looks again, that the registration is
 * another, and writes that. So the last write of all is of what is registered:
 *
 *     one                         other
 *     reads registration A
 *                                 registers B, reads it, writes it; still B: done
 *     writes A; now it is B:
 *     writes B; still B: done
 */
int
core_settle(Selector *self, const Core *core, PyObject *number, int fd, PyObject *otherwise)
{
    PyObject *data = registered_data(core, fd);
    bool settled = false;
    int status = 0;
    while (status == 0 && !settled) {
        status = put_key(self, number, data != NULL && key_is(self->module, data) ? data : otherwise);
        PyObject *present = registered_data(core, fd);
        settled = present == data;
        Py_XDECREF(data);
        data = present;
    }
    Py_XDECREF(data);
    return status;
}

PyObject *
core_pop(Selector *self, PyObject *number)
{
    PyObject *key;
    bool found = PyDict_GetItemRef(self->keys, number, &key) > 0 && key_is(self->module, key);
    Py_XDECREF(key);
    key = NULL;
    return found && PyDict_Pop(self->keys, number, &key) > 0 ? key : NULL;
}

/* Unregister `key`, but nothing that another call has registered since. 0, or -1 with an exception. */
static int
unregister_only(Selector *self, const Core *core, int fd, const PyObject *key)
{
    if (core->direct) {
        return told(ctl_unregister_only(core->instance, fd, key));
    }
    PyObject *data = registered_data(core, fd);
    bool replaced = data != NULL && data != key && key_is(self->module, data);
    Py_XDECREF(data);
    return replaced ? 0 : core_unregister(core, fd);
}

void
core_forget(Selector *self, const Core *core, PyObject *number, int fd, PyObject *key)
{
    PyObject *error = PyErr_GetRaisedException();
    if (unregister_only(self, core, fd, key) < 0) {
        PyErr_Clear();
    }
    if (core_settle(self, core, number, fd, NULL) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(error);
}

void
core_resettle(Selector *self, const Core *core, PyObject *number, int fd, const PyObject *seen)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *present;
    if (PyDict_GetItemRef(self->keys, number, &present) < 0 ||
        (present == seen && core_settle(self, core, number, fd, NULL) < 0)) {
        PyErr_Clear();
    }
    Py_XDECREF(present);
    PyErr_SetRaisedException(error);
}

/* Ask a core whose poll is not the package's. */
static PyObject *
call_poll(PyObject *core, PyObject *object, int64_t timeout)
{
    PyObject *name = PyUnicode_FromString("poll");
    PyObject *zero = PyLong_FromLong(0);
    PyObject *list = NULL;
    if (name != NULL && zero != NULL) {
        list = PyObject_CallMethodOneArg(core, name,
                                         timeout == FOREVER ? Py_None
                                         : timeout == 0     ? zero
                                                            : object);
    }
    Py_XDECREF(zero);
    Py_XDECREF(name);
    return list;
}

/* The package's Epoll is waited on without a word to the object, which may go meanwhile. */
static PyObject *
wait_on(Instance *instance, int64_t timeout)
{
    WaitFor wait;
    wait.timeout = timeout;
    wait.deadline = timeout > 0 ? wait_deadline(timeout) : 0;
    wait.maxevents = INT_MAX;
    wait.masked = false;
    PyObject *list = ready_list(instance, &wait);
    if (list == NULL && !PyErr_Occurred()) {
        told(IS_CLOSED);
    }
    return list;
}

PyObject *
core_wait(Selector *self, PyObject *object, int64_t timeout)
{
    guard_lock(&self->guard);
    Instance *instance = self->direct ? (Instance *)Py_NewRef(self->instance) : NULL;
    guard_unlock(&self->guard);
    if (instance != NULL) {
        PyObject *list = wait_on(instance, timeout);
        Py_DECREF(instance);
        return list;
    }
    Core core;
    if (core_take(self, &core) < 0) {
        return NULL;
    }
    PyObject *list = call_poll(core.object, object, timeout);
    core_drop(&core);
    return list;
}
