#include "aio/fdtable.h"

#include "aio/process.h"
#include "aio/sockets.h"

#include "base/errors.h"
#include "selector/selector_key.h"

#include <errno.h>
#include <fcntl.h>

void
garbage_release(Garbage *garbage)
{
    while (garbage->count > 0) {
        Py_DECREF(garbage->items[--garbage->count]);
    }
}

int
fdtable_check(const LoopSelector *self)
{
    if (self->instance == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this selector has no Epoll: was __init__ called?");
        return -1;
    }
    return process_check(self->epoch);
}

FdEntry *
fdtable_find(LoopSelector *self, int fd)
{
    guard_lock(&self->guard);
    FdEntry *entry = fdtable_slot(self, fd);
    entry = entry != NULL && entry->wanted != 0 ? (FdEntry *)Py_NewRef(entry) : NULL;
    guard_unlock(&self->guard);
    return entry;
}

FdEntry *
fdtable_enter(LoopSelector *self, int fd)
{
    guard_lock(&self->guard);
    FdEntry *entry = fdtable_slot(self, fd);
    entry = entry != NULL && entry->wanted != 0 ? fdtable_use(entry) : NULL;
    guard_unlock(&self->guard);
    return entry;
}

int
fdtable_find_object(LoopSelector *self, const PyObject *fileobj)
{
    int found = -1;
    guard_lock(&self->guard);
    for (int fd = 0; found < 0 && fd < self->table.size; fd++) {
        const FdEntry *entry = self->table.items[fd];
        found = entry != NULL && entry->wanted != 0 && entry->fileobj == fileobj ? fd : -1;
    }
    guard_unlock(&self->guard);
    return found;
}

/* With the guard: make room for `fd`. 0 or -1. */
static int
ensure_size(LoopSelector *self, int fd)
{
    if (fd < self->table.size) {
        return 0;
    }
    int size = Py_MAX(fd + 1, Py_MAX(64, self->table.size * 2));
    FdEntry **items = PyMem_Realloc(self->table.items, (size_t)size * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    memset(items + self->table.size, 0, (size_t)(size - self->table.size) * sizeof(*items));
    self->table.items = items;
    self->table.size = size;
    return 0;
}

static FdEntry *
entry_new(LoopSelector *self, int fd)
{
    PyTypeObject *type = module_type(aio_of(self->module)->fds.entry_type);
    FdEntry *entry = type != NULL ? PyObject_GC_New(FdEntry, type) : NULL;
    if (entry != NULL) {
        memset((char *)entry + sizeof(PyObject), 0, sizeof(*entry) - sizeof(PyObject));
        entry->fd = fd;
        PyObject_GC_Track(entry);
    }
    return entry;
}

FdEntry *
fdtable_ensure(LoopSelector *self, const FdUpdate *update)
{
    int fd = update->fd;
    guard_lock(&self->guard);
    FdEntry *slot = fdtable_slot(self, fd);
    FdEntry *entry = slot != NULL ? fdtable_use(slot) : NULL;
    bool outside = fd >= self->table.size;
    guard_unlock(&self->guard);
    if (entry != NULL) {
        return entry;
    }
    if (outside && fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
        ctl_error(EBADF, EPOLL_CTL_ADD, "register", instance_public_fd(self->instance), fd,
                  fdtable_mask(update->events));
        return NULL;
    }
    FdEntry *made = entry_new(self, fd);
    if (made == NULL) {
        return NULL;
    }
    guard_lock(&self->guard);
    int status = ensure_size(self, fd);
    if (status == 0 && self->table.items[fd] == NULL) {
        self->table.items[fd] = (FdEntry *)Py_NewRef(made);
    }
    entry = status == 0 ? fdtable_use(self->table.items[fd]) : NULL;
    guard_unlock(&self->guard);
    Py_DECREF(made);
    return entry != NULL ? entry : (FdEntry *)PyErr_NoMemory();
}

void
fdtable_leave(LoopSelector *self, FdEntry *entry)
{
    Garbage garbage = {0};
    guard_lock(&self->guard);
    entry->users--;
    bool unused = entry->users == 0 && entry->wanted == 0 && entry->present == 0;
    if (unused && fdtable_slot(self, entry->fd) == entry) {
        entry->queued = false;
        garbage_add(&garbage, (PyObject **)&self->table.items[entry->fd]);
    }
    guard_unlock(&self->guard);
    garbage_release(&garbage);
    Py_DECREF(entry);
}

/* The socket that the kernel's entry was made for: a new reference; NULL if there is none, or it is gone. */
static PyObject *
socket_of(LoopSelector *self, FdEntry *entry)
{
    guard_lock(&self->guard);
    PyObject *reference = entry->present != 0 ? Py_XNewRef(entry->sock) : NULL;
    guard_unlock(&self->guard);
    PyObject *sock = NULL;
    if (reference != NULL && PyWeakref_GetRef(reference, &sock) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(reference);
    return sock;
}

bool
fdtable_is_known(LoopSelector *self, FdEntry *entry, const FdUpdate *update)
{
    if (update->closed || !Py_IS_TYPE(update->fileobj, aio_of(self->module)->fds.socket_type)) {
        return false;
    }
    PyObject *sock = socket_of(self, entry);
    bool known = sock == update->fileobj;
    Py_XDECREF(sock);
    return known;
}

bool
fdtable_has_socket(LoopSelector *self, FdEntry *entry)
{
    PyObject *sock = socket_of(self, entry);
    bool has = sock != NULL && socket_fd(aio_of(self->module), sock) == entry->fd;
    PyErr_Clear();
    Py_XDECREF(sock);
    return has;
}

bool
fdtable_queue(LoopSelector *self, FdEntry *entry)
{
    if (entry->queued || entry->wanted == entry->present) {
        return true;
    }
    if (self->changes.count == self->changes.capacity) {
        int capacity = Py_MAX(16, self->changes.capacity * 2);
        int *fds = PyMem_Realloc(self->changes.fds, (size_t)capacity * sizeof(*fds));
        if (fds == NULL) {
            return false;
        }
        self->changes.fds = fds;
        self->changes.capacity = capacity;
    }
    self->changes.fds[self->changes.count++] = entry->fd;
    entry->queued = true;
    return true;
}

void
fdtable_set_wanted(LoopSelector *self, FdEntry *entry, uint8_t events)
{
    self->table.count += (events != 0) - (entry->wanted != 0);
    entry->wanted = events;
}

void
fdtable_forget(LoopSelector *self, FdEntry *entry, FdUpdate *update, Garbage *garbage)
{
    for (int i = 0; i < DIRECTIONS; i++) {
        if (update->dropped[i] == NULL) {
            update->dropped[i] = entry->handles[i];
            entry->handles[i] = NULL;
        }
        garbage_add(garbage, &entry->handles[i]);
    }
    garbage_add(garbage, &entry->fileobj);
    garbage_add(garbage, &entry->data);
    garbage_add(garbage, &entry->key);
    garbage_add(garbage, &entry->sock);
    fdtable_set_wanted(self, entry, 0);
    entry->present = 0;
}

/* The handles of data that are a pair, as asyncio makes them. */
static void
set_data(FdEntry *entry, PyObject *data, Garbage *garbage)
{
    bool pair = PyTuple_CheckExact(data) && PyTuple_GET_SIZE(data) == DIRECTIONS;
    for (int i = 0; i < DIRECTIONS; i++) {
        PyObject *handle = pair ? PyTuple_GET_ITEM(data, i) : Py_None;
        garbage_add(garbage, &entry->handles[i]);
        entry->handles[i] = handle != Py_None ? Py_NewRef(handle) : NULL;
    }
    garbage_add(garbage, &entry->data);
    entry->data = Py_NewRef(data);
}

void
fdtable_install(LoopSelector *self, FdEntry *entry, FdUpdate *update, uint8_t events, PyObject *sock,
                Garbage *garbage)
{
    if (update->data != NULL) {
        set_data(entry, update->data, garbage);
    }
    else {
        int direction = (update->events & EVENT_READ) != 0 ? READER : WRITER;
        if (update->dropped[direction] == NULL) {
            update->dropped[direction] = entry->handles[direction];
            entry->handles[direction] = NULL;
        }
        garbage_add(garbage, &entry->handles[direction]);
        entry->handles[direction] = Py_NewRef(update->handle);
        garbage_add(garbage, &entry->data);
    }
    garbage_add(garbage, &entry->key);
    if (entry->fileobj == NULL) {
        entry->fileobj = Py_NewRef(update->fileobj);
    }
    if (sock != NULL) {
        garbage_add(garbage, &entry->sock);
        entry->sock = sock;
    }
    fdtable_set_wanted(self, entry, events);
}

void
fdtable_free(LoopSelector *self)
{
    guard_lock(&self->guard);
    FdEntry **items = self->table.items;
    int size = self->table.size;
    PyMem_Free(self->changes.fds);
    memset(&self->table, 0, sizeof(self->table));
    memset(&self->changes, 0, sizeof(self->changes));
    guard_unlock(&self->guard);
    for (int fd = 0; fd < size; fd++) {
        Py_XDECREF(items[fd]);
    }
    PyMem_Free(items);
}
