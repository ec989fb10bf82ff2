#include "buffer.h"

#include "base/atfork.h"
#include "convert.h"
#include "module.h"

#include <limits.h>

/* A wait that was under way when the process forked goes on in the parent alone, so its claim is
 * void in the child. */
static bool
is_claimed(const EventBuffer *self)
{
    return self->waiter == fork_epoch();
}

static int
refuse_claimed(void)
{
    PyErr_SetString(PyExc_BufferError, "the kernel is filling this EventBuffer for a wait in another thread");
    return -1;
}

int
buffer_claim(EventBuffer *self)
{
    bool claimed;
    Py_BEGIN_CRITICAL_SECTION(self);
    claimed = is_claimed(self);
    if (!claimed) {
        self->waiter = fork_epoch();
        self->count = 0;
    }
    Py_END_CRITICAL_SECTION();
    return claimed ? refuse_claimed() : 0;
}

void
buffer_release(EventBuffer *self, int count)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    self->count = count;
    self->waiter = 0;
    Py_END_CRITICAL_SECTION();
}

static PyObject *
buffer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", NULL};
    PyObject *object;
    int capacity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:EventBuffer", names, &object) ||
        convert_int(object, &capacity) < 0) {
        return NULL;
    }
    /* The kernel takes no more than INT_MAX bytes of events. */
    const int most = INT_MAX / (int)sizeof(struct epoll_event);
    if (capacity < 1 || capacity > most) {
        return PyErr_Format(PyExc_ValueError, "capacity must be 1 to %d events, got %d", most, capacity);
    }
    EventBuffer *self = (EventBuffer *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->events = PyMem_New(struct epoll_event, (size_t)capacity);
    if (self->events == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->capacity = capacity;
    return (PyObject *)self;
}

static void
buffer_dealloc(EventBuffer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(self->events);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t
buffer_length(EventBuffer *self)
{
    return self->capacity;
}

/* NULL. */
static PyObject *
refuse_index(Py_ssize_t index, int count)
{
    return count == 0
               ? PyErr_Format(PyExc_IndexError, "event %zd is out of range: the last wait filled in none",
                              index)
               : PyErr_Format(PyExc_IndexError, "event %zd is out of range: the last wait filled in 0 to %d",
                              index, count - 1);
}

static PyObject *
buffer_item(EventBuffer *self, Py_ssize_t index)
{
    bool claimed, filled = false;
    int count = 0;
    uint32_t events = 0;
    uint64_t data = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    claimed = is_claimed(self);
    count = self->count;
    if (!claimed && index >= 0 && index < self->count) {
        filled = true;
        events = self->events[index].events;
        data = self->events[index].data.u64;
    }
    Py_END_CRITICAL_SECTION();
    if (claimed) {
        refuse_claimed();
        return NULL;
    }
    if (!filled) {
        return refuse_index(index, count);
    }
    return Py_BuildValue("(kK)", (unsigned long)events, (unsigned long long)data);
}

PyDoc_STRVAR(buffer_doc,
"EventBuffer(capacity)\n--\n\n"
"The array of struct epoll_event that the kernel fills: made once, used by many waits.\n\n"
"capacity is the number of events that one wait can return, 1 to INT_MAX / sizeof(struct\n"
"epoll_event), about 178 million on x86-64; len() tells it. buffer[i] is the pair (events, data)\n"
"of ints for event i of the last wait, and iteration goes through that wait's events.\n\n"
"Raises ValueError for a capacity out of range (OverflowError where it does not fit 32 bits, MemoryError\n"
"where there is no room for it), IndexError for an index beyond the last wait's\n"
"count, and BufferError for any use while a wait in another thread fills the buffer.\n"
"See epoll_wait(2).");

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc,     (void *)buffer_doc},
    {Py_tp_new,     buffer_new        },
    {Py_tp_dealloc, buffer_dealloc    },
    {Py_tp_iter,    PySeqIter_New     },
    {Py_sq_length,  buffer_length     },
    {Py_sq_item,    buffer_item       },
    {0,             NULL              },
};

PyType_Spec buffer_spec = {
    .name = "pyepoll.raw.EventBuffer",
    .basicsize = sizeof(EventBuffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};
