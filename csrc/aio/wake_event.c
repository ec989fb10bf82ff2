#include "aio/wake_event.h"

#include "aio/fdkernel.h"
#include "aio/fds.h"
#include "core/ctl.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A thread that writes holds a reference: the fd cannot be closed, and be another file, meanwhile. */
typedef struct {
    PyObject_HEAD
    int fd;
} WakeEvent;

static WakeEvent *
event_new(const AioState *state)
{
    PyTypeObject *type = module_type(state->loop.wake_event_type);
    WakeEvent *self = type != NULL ? PyObject_New(WakeEvent, type) : NULL;
    if (self == NULL) {
        return NULL;
    }
    self->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
    return self;
}

/* A thread that takes a reference does so in such a section too. */
PyObject *
wake_event_swap(EventLoop *self, PyObject *event)
{
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(self);
    before = self->wake_event;
    self->wake_event = event;
    Py_END_CRITICAL_SECTION();
    return before;
}

void
wake_event_make(EventLoop *self)
{
    PyObject *selector = loop_member(&self->selector);
    if (self->wake_event != NULL || !is_loop_selector(self->state, selector)) {
        return;
    }
    Py_INCREF(selector);
    Instance *instance = (Instance *)Py_XNewRef(((LoopSelector *)selector)->instance);
    WakeEvent *event = instance != NULL ? event_new(self->state) : NULL;
    /* Edge-triggered: each write is an event. The data are no FdEntry, so no handle is called. */
    if (event != NULL && fdkernel_check(ctl_register(instance, event->fd, EPOLLIN | EPOLLET, Py_None)) == 0 &&
        loop_member(&self->selector) == selector) {
        event = (WakeEvent *)wake_event_swap(self, (PyObject *)event);
    }
    PyErr_Clear();
    Py_XDECREF(event);
    Py_XDECREF(instance);
    Py_DECREF(selector);
}

bool
wake_event_set(EventLoop *self)
{
    PyObject *object = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    object = Py_XNewRef(loop_member(&self->wake_event));
    Py_END_CRITICAL_SECTION();
    bool done = false;
    if (object != NULL && Py_IS_TYPE(object, self->state->loop.wake_event_type)) {
        const uint64_t one = 1;
        int fd = ((WakeEvent *)object)->fd;
        Py_BEGIN_ALLOW_THREADS
        done = write(fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN;
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF(object);
    return done;
}

static void
event_dealloc(WakeEvent *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->fd >= 0) {
        close(self->fd);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot event_slots[] = {
    {Py_tp_dealloc, event_dealloc},
    {0,             NULL         },
};

PyType_Spec wake_event_spec = {
    .name = "pyepoll._epoll.WakeEvent",
    .basicsize = sizeof(WakeEvent),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = event_slots,
};
