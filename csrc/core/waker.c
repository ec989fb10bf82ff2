/* Waker: an eventfd that wakes the epolls which watch it. In C, because between reading the fd and writing to
 * it no other Python code may run: close() in a signal handler or another thread would give the fd away, and
 * the write would reach an unrelated file. A non-blocking eventfd never makes a caller wait, so all of it
 * happens with the GIL held (on a free-threaded build, a mutex). */
#include "core/waker.h"

#include "base/errors.h"
#include "base/module_state.h"
#include "base/mutex.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    int fd; /* -1 once closed */
    Guard guard;
} Waker;

static PyObject *
waker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Waker", names)) {
        return NULL;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return os_error(errno, "eventfd(CLOEXEC | NONBLOCK)");
    }
    Waker *self = (Waker *)type->tp_alloc(type, 0);
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    self->fd = fd;
    return (PyObject *)self;
}

static void
waker_dealloc(Waker *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->fd >= 0) {
        close(self->fd);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
raise_waker_closed(void)
{
    PyErr_SetString(PyExc_ValueError, "I/O operation on closed waker");
    return NULL;
}

/* Make the eventfd readable, with an edge. 0 or an errno. */
static int
make_readable(int fd)
{
    if (eventfd_write(fd, 1) == 0) {
        return 0;
    }
    if (errno != EAGAIN) {
        return errno;
    }
    /* The counter is full, and a write that would block makes no edge: make room for one. If another thread
     * fills it meanwhile, that write makes the edge. */
    eventfd_t count;
    eventfd_read(fd, &count);
    return eventfd_write(fd, 1) == 0 || errno == EAGAIN ? 0 : errno;
}

PyDoc_STRVAR(wake_doc,
"wake($self, /)\n--\n\n"
"Make the waker readable: this wakes the epolls that watch it. From any thread and any signal handler.\n\n"
"Several calls before the waker is seen count as one. Never blocks; does nothing if the waker is closed.\n\n"
"Raises OSError: EBADF if the fd has been closed elsewhere. See eventfd(2).");

static PyObject *
waker_wake(Waker *self, PyObject *Py_UNUSED(ignored))
{
    guard_lock(&self->guard);
    int fd = self->fd;
    int error = fd >= 0 ? make_readable(fd) : 0;
    guard_unlock(&self->guard);
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "wake: eventfd %d", fd);
}

PyDoc_STRVAR(clear_doc,
"clear($self, /)\n--\n\n"
"Make the waker unreadable again, and return whether it was readable.\n\n"
"Needed if the waker is watched level-triggered; with Event.ET each wake is reported without it. Clear the\n"
"waker before you look for the work that the wake announces, so that none is missed.\n\n"
"Raises ValueError if the waker is closed; OSError: EBADF as wake. See eventfd(2).");

static PyObject *
waker_clear(Waker *self, PyObject *Py_UNUSED(ignored))
{
    eventfd_t count;
    guard_lock(&self->guard);
    int fd = self->fd;
    int error = fd >= 0 && eventfd_read(fd, &count) < 0 ? errno : 0;
    guard_unlock(&self->guard);
    if (fd < 0) {
        return raise_waker_closed();
    }
    return error == 0 || error == EAGAIN ? PyBool_FromLong(error == 0)
                                         : os_error(error, "clear: eventfd %d", fd);
}

PyDoc_STRVAR(fileno_doc,
"fileno($self, /)\n--\n\n"
"Return the fd of the eventfd. Raises ValueError if the waker is closed.");

static PyObject *
waker_fileno(Waker *self, PyObject *Py_UNUSED(ignored))
{
    int fd;
    guard_lock(&self->guard);
    fd = self->fd;
    guard_unlock(&self->guard);
    return fd >= 0 ? PyLong_FromLong(fd) : raise_waker_closed();
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Close the eventfd; a second close does nothing. Unregister the waker first: see epoll(7), question 6.\n\n"
"Raises OSError: EBADF if the fd has been closed elsewhere.");

static PyObject *
waker_close(Waker *self, PyObject *Py_UNUSED(ignored))
{
    int fd, error = 0;
    guard_lock(&self->guard);
    fd = self->fd;
    self->fd = -1; /* no other call has it from here on */
    guard_unlock(&self->guard);
    if (fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        error = close(fd) < 0 ? errno : 0; /* takes the lock of each epoll that watches it */
        Py_END_ALLOW_THREADS
    }
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "close eventfd %d", fd);
}

static PyObject *
waker_closed(Waker *self, void *Py_UNUSED(closure))
{
    bool closed;
    guard_lock(&self->guard);
    closed = self->fd < 0;
    guard_unlock(&self->guard);
    return PyBool_FromLong(closed);
}

PyDoc_STRVAR(enter_doc,
"__enter__($self, /)\n--\n\n"
"Return the object itself. Raises ValueError if the waker is closed.");

static PyObject *
waker_enter(Waker *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *fd = waker_fileno(self, NULL);
    if (fd == NULL) {
        return NULL;
    }
    Py_DECREF(fd);
    return Py_NewRef(self);
}

PyDoc_STRVAR(exit_doc,
"__exit__($self, kind, error, trace, /)\n--\n\n"
"Close the waker.");

static PyObject *
waker_exit(Waker *self, PyObject *Py_UNUSED(args))
{
    return waker_close(self, NULL);
}

static PyObject *
waker_repr(Waker *self)
{
    guard_lock(&self->guard);
    int fd = self->fd;
    guard_unlock(&self->guard);
    return fd >= 0 ? PyUnicode_FromFormat("<pyepoll.Waker fd=%d>", fd)
                   : PyUnicode_FromString("<pyepoll.Waker closed>");
}

static PyMethodDef waker_methods[] = {
    {"wake",      (PyCFunction)waker_wake,   METH_NOARGS,  wake_doc  },
    {"clear",     (PyCFunction)waker_clear,  METH_NOARGS,  clear_doc },
    {"fileno",    (PyCFunction)waker_fileno, METH_NOARGS,  fileno_doc},
    {"close",     (PyCFunction)waker_close,  METH_NOARGS,  close_doc },
    {"__enter__", (PyCFunction)waker_enter,  METH_NOARGS,  enter_doc },
    {"__exit__",  (PyCFunction)waker_exit,   METH_VARARGS, exit_doc  },
    {NULL,        NULL,                      0,            NULL      },
};

static PyGetSetDef waker_getset[] = {
    {"closed", (getter)waker_closed, NULL, "True once close() has been called.", NULL},
    {NULL,     NULL,                 NULL, NULL,                                 NULL},
};

PyDoc_STRVAR(waker_doc,
"Waker()\n--\n\n"
"Wakes a wait from any thread or signal handler: an eventfd, registered like any other fd.\n\n"
"    ep.register(waker, Event.IN | Event.ET, data=waker)\n\n"
"A wake is never lost; several wakes before the waker is seen count as one. After a fork, parent and child\n"
"share the waker, like every fd.\n\n"
"Raises OSError: EMFILE or ENFILE if no fd is left. See eventfd(2).");

static PyType_Slot waker_slots[] = {
    {Py_tp_doc,     (void *)waker_doc},
    {Py_tp_new,     waker_new        },
    {Py_tp_dealloc, waker_dealloc    },
    {Py_tp_repr,    waker_repr       },
    {Py_tp_methods, waker_methods    },
    {Py_tp_getset,  waker_getset     },
    {0,             NULL             },
};

PyType_Spec waker_spec = {
    .name = "pyepoll.Waker",
    .basicsize = sizeof(Waker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = waker_slots,
};
