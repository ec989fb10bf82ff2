/* Waker: an eventfd that wakes the epolls which watch it. */
#include "core/waker.h"

#include "base/errors.h"
#include "core/fd_object.h"

#include <errno.h>
#include <sys/eventfd.h>

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
    return fd_object_new(type, fd, "waker", "eventfd");
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
waker_wake(FdObject *self, PyObject *Py_UNUSED(ignored))
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
waker_clear(FdObject *self, PyObject *Py_UNUSED(ignored))
{
    eventfd_t count;
    guard_lock(&self->guard);
    int fd = self->fd;
    int error = fd >= 0 && eventfd_read(fd, &count) < 0 ? errno : 0;
    guard_unlock(&self->guard);
    if (fd < 0) {
        return fd_object_raise_closed(self);
    }
    return error == 0 || error == EAGAIN ? PyBool_FromLong(error == 0)
                                         : os_error(error, "clear: eventfd %d", fd);
}

static PyMethodDef waker_methods[] = {
    {"wake",      (PyCFunction)waker_wake,       METH_NOARGS,  wake_doc            },
    {"clear",     (PyCFunction)waker_clear,      METH_NOARGS,  clear_doc           },
    {"fileno",    (PyCFunction)fd_object_fileno, METH_NOARGS,  fd_object_fileno_doc},
    {"close",     (PyCFunction)fd_object_close,  METH_NOARGS,  fd_object_close_doc },
    {"__enter__", (PyCFunction)fd_object_enter,  METH_NOARGS,  fd_object_enter_doc },
    {"__exit__",  (PyCFunction)fd_object_exit,   METH_VARARGS, fd_object_exit_doc  },
    {NULL,        NULL,                          0,            NULL                },
};

static PyGetSetDef waker_getset[] = {
    FD_OBJECT_CLOSED,
    {NULL, NULL, NULL, NULL, NULL},
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
    {Py_tp_dealloc, fd_object_dealloc},
    {Py_tp_repr,    fd_object_repr   },
    {Py_tp_methods, waker_methods    },
    {Py_tp_getset,  waker_getset     },
    {0,             NULL             },
};

PyType_Spec waker_spec = {
    .name = "pyepoll.Waker",
    .basicsize = sizeof(FdObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = waker_slots,
};
