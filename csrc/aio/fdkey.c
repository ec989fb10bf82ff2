#include "aio/fdkey.h"

#include "selector/selector_key.h"

static PyObject *
handle_or_none(const FdEntry *entry, int direction)
{
    PyObject *handle = entry->handles[direction];
    return Py_NewRef(handle != NULL ? handle : Py_None);
}

/* A new SelectorKey for what the entry has now. NULL with an exception; without one where it is not watched
 * any more. */
static PyObject *
new_key(LoopSelector *self, FdEntry *entry)
{
    guard_lock(&self->guard);
    long wanted = entry->wanted;
    PyObject *fileobj = Py_XNewRef(entry->fileobj);
    PyObject *data = Py_XNewRef(entry->data);
    PyObject *reader = handle_or_none(entry, READER), *writer = handle_or_none(entry, WRITER);
    guard_unlock(&self->guard);
    if (wanted != 0 && data == NULL) {
        data = PyTuple_Pack(DIRECTIONS, reader, writer); /* as asyncio keeps them */
    }
    Py_DECREF(reader);
    Py_DECREF(writer);
    PyObject *fd = wanted != 0 && data != NULL ? PyLong_FromLong(entry->fd) : NULL;
    PyObject *events = fd != NULL ? PyLong_FromLong(wanted) : NULL;
    PyObject *key = events != NULL ? selector_key_new(self->module, fileobj, fd, events, data) : NULL;
    Py_XDECREF(events);
    Py_XDECREF(fd);
    Py_XDECREF(data);
    Py_XDECREF(fileobj);
    return key;
}

PyObject *
fdkey_of(LoopSelector *self, FdEntry *entry)
{
    guard_lock(&self->guard);
    PyObject *key = Py_XNewRef(entry->key);
    unsigned operations = entry->operations;
    guard_unlock(&self->guard);
    if (key == NULL && (key = new_key(self, entry)) != NULL) {
        guard_lock(&self->guard);
        if (entry->key == NULL && entry->operations == operations) {
            entry->key = Py_NewRef(key);
        }
        guard_unlock(&self->guard);
    }
    return key;
}

PyObject *
fdkey_find(LoopSelector *self, int fd)
{
    FdEntry *entry = fdtable_find(self, fd);
    PyObject *key = entry != NULL ? fdkey_of(self, entry) : NULL;
    Py_XDECREF(entry);
    return key;
}
