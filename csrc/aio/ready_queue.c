#include "aio/ready_queue.h"

#ifdef Py_GIL_DISABLED
static bool
is_foreign(ReadyQueue *self)
{
    unsigned long owner = atomic_load_explicit(&self->owner, memory_order_acquire);
    return owner != PyThread_get_thread_ident();
}

int
ready_collect(ReadyQueue *self)
{
    if (atomic_load_explicit(&self->incoming, memory_order_acquire) == 0) {
        return 0;
    }
    int status = 0;
    mutex_lock(&self->lock);
    while (self->inbox.count > 0 && status == 0) {
        PyObject *object = ring_popleft(&self->inbox);
        if (self->ring.count == self->ring.capacity && ring_grow(&self->ring) < 0) {
            self->inbox.head = (self->inbox.head - 1) & (self->inbox.capacity - 1);
            self->inbox.count++;
            status = -1;
        }
        else {
            self->ring.items[(self->ring.head + self->ring.count++) & (self->ring.capacity - 1)] = object;
        }
    }
    atomic_store(&self->incoming, self->inbox.count);
    mutex_unlock(&self->lock);
    return status;
}

int
ready_put_shared(ReadyQueue *self, PyObject *object)
{
    if (!is_foreign(self)) {
        return ready_collect(self) < 0 ? -1 : ring_append(&self->ring, object);
    }
    mutex_lock(&self->lock);
    int status = ring_append(&self->inbox, object);
    atomic_store(&self->incoming, self->inbox.count);
    mutex_unlock(&self->lock);
    return status;
}
#else
int
ready_put_shared(ReadyQueue *self, PyObject *object)
{
    return ring_append(&self->ring, object);
}
#endif

/* For all methods but append(): on a free-threaded build a running loop's ring is its thread's. 0, or -1 with
 * an exception. */
static int
enter(ReadyQueue *self)
{
#ifdef Py_GIL_DISABLED
    unsigned long owner = atomic_load_explicit(&self->owner, memory_order_acquire);
    if (owner != 0 && owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "the queue of a running event loop belongs to its thread");
        return -1;
    }
#endif
    return ready_collect(self);
}

PyDoc_STRVAR(append_doc, "append($self, handle, /)\n--\n\nAdd a handle at the end.");

static PyObject *
queue_append(ReadyQueue *self, PyObject *object)
{
    return ready_put_shared(self, object) == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(appendleft_doc, "appendleft($self, handle, /)\n--\n\nAdd a handle at the beginning.");

static PyObject *
queue_appendleft(ReadyQueue *self, PyObject *object)
{
    if (enter(self) < 0 || (self->ring.count == self->ring.capacity && ring_grow(&self->ring) < 0)) {
        return NULL;
    }
    self->ring.head = (self->ring.head - 1) & (self->ring.capacity - 1);
    self->ring.items[self->ring.head] = Py_NewRef(object);
    self->ring.count++;
    Py_RETURN_NONE;
}

/* 0, or -1 with an exception. */
static int
enter_nonempty(ReadyQueue *self)
{
    if (enter(self) < 0) {
        return -1;
    }
    if (self->ring.count == 0) {
        PyErr_SetString(PyExc_IndexError, "pop from an empty deque");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(popleft_doc,
"popleft($self, /)\n--\n\nRemove the first handle and return it. Raises IndexError if there is none.");

static PyObject *
queue_popleft(ReadyQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter_nonempty(self) < 0) {
        return NULL;
    }
    counter_add(&self->popped, 1);
    return ring_popleft(&self->ring);
}

PyDoc_STRVAR(pop_doc,
"pop($self, /)\n--\n\nRemove the last handle and return it. Raises IndexError if there is none.");

static PyObject *
queue_pop(ReadyQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter_nonempty(self) < 0) {
        return NULL;
    }
    PyObject *object = ring_get(&self->ring, self->ring.count - 1);
    self->ring.count--;
    return object;
}

PyDoc_STRVAR(extend_doc, "extend($self, handles, /)\n--\n\nAdd the handles of an iterable at the end.");

static PyObject *
queue_extend(ReadyQueue *self, PyObject *iterable)
{
    PyObject *list = PySequence_List(iterable);
    if (list == NULL) {
        return NULL;
    }
    int status = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && status == 0; i++) {
        status = ready_put_shared(self, PyList_GET_ITEM(list, i));
    }
    Py_DECREF(list);
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nRemove all handles.");

static PyObject *
queue_clear(ReadyQueue *self, PyObject *Py_UNUSED(ignored))
{
    if (enter(self) < 0) {
        return NULL;
    }
    ring_clear(&self->ring);
    Py_RETURN_NONE;
}

static PyObject *
queue_list(ReadyQueue *self)
{
    if (enter(self) < 0) {
        return NULL;
    }
    const size_t count = self->ring.count;
    PyObject *list = PyList_New((Py_ssize_t)count);
    if (list != NULL && count != self->ring.count) {
        /* With CPython 3.11 the collector may have run, and code that uses the queue. */
        Py_DECREF(list);
        return queue_list(self);
    }
    for (size_t i = 0; list != NULL && i < self->ring.count; i++) {
        PyList_SET_ITEM(list, (Py_ssize_t)i, Py_NewRef(ring_get(&self->ring, i)));
    }
    return list;
}

PyDoc_STRVAR(index_doc,
"index($self, handle, /)\n--\n\nReturn the place of a handle. Raises ValueError if it is not there.");

static PyObject *
queue_index(ReadyQueue *self, PyObject *object)
{
    PyObject *list = queue_list(self);
    Py_ssize_t index = list != NULL ? PySequence_Index(list, object) : -1;
    Py_XDECREF(list);
    return index >= 0 ? PyLong_FromSsize_t(index) : NULL;
}

PyDoc_STRVAR(remove_doc,
"remove($self, handle, /)\n--\n\nRemove the first handle that is equal. Raises ValueError if there is none.");

static PyObject *
queue_remove(ReadyQueue *self, PyObject *object)
{
    PyObject *list = queue_list(self);
    Py_ssize_t index = list != NULL ? PySequence_Index(list, object) : -1;
    size_t length = list != NULL ? (size_t)PyList_GET_SIZE(list) : 0;
    PyObject *found = index >= 0 ? PyList_GET_ITEM(list, index) : NULL;
    bool same = found != NULL && length == self->ring.count && ring_get(&self->ring, (size_t)index) == found;
    if (same) {
        const size_t mask = self->ring.capacity - 1;
        for (size_t i = (size_t)index; i + 1 < length; i++) {
            self->ring.items[(self->ring.head + i) & mask] = ring_get(&self->ring, i + 1);
        }
        self->ring.count--;
        Py_DECREF(found);
    }
    else if (found != NULL) {
        PyErr_SetString(PyExc_IndexError, "deque mutated during remove().");
    }
    Py_XDECREF(list);
    return same ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
queue_iter(ReadyQueue *self)
{
    PyObject *list = queue_list(self);
    PyObject *iterator = list != NULL ? PyObject_GetIter(list) : NULL;
    Py_XDECREF(list);
    return iterator;
}

static Py_ssize_t
queue_length(ReadyQueue *self)
{
    return enter(self) == 0 ? (Py_ssize_t)self->ring.count : -1;
}

static PyObject *
queue_item(ReadyQueue *self, Py_ssize_t index)
{
    if (enter(self) < 0) {
        return NULL;
    }
    if (index < 0 || (size_t)index >= self->ring.count) {
        PyErr_SetString(PyExc_IndexError, "deque index out of range");
        return NULL;
    }
    return Py_NewRef(ring_get(&self->ring, (size_t)index));
}

static int
queue_contains(ReadyQueue *self, PyObject *object)
{
    PyObject *list = queue_list(self);
    int status = list != NULL ? PySequence_Contains(list, object) : -1;
    Py_XDECREF(list);
    return status;
}

static PyObject *
queue_repr(ReadyQueue *self)
{
    PyObject *list = queue_list(self);
    PyObject *text = list != NULL ? PyUnicode_FromFormat("ReadyQueue(%R)", list) : NULL;
    Py_XDECREF(list);
    return text;
}

static int
queue_traverse(ReadyQueue *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < self->ring.count; i++) {
        Py_VISIT(ring_get(&self->ring, i));
    }
#ifdef Py_GIL_DISABLED
    for (size_t i = 0; i < self->inbox.count; i++) {
        Py_VISIT(ring_get(&self->inbox, i));
    }
#endif
    return 0;
}

static int
queue_tp_clear(ReadyQueue *self)
{
    ring_clear(&self->ring);
#ifdef Py_GIL_DISABLED
    ring_clear(&self->inbox);
    atomic_store(&self->incoming, 0);
#endif
    return 0;
}

static void
queue_dealloc(ReadyQueue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    queue_tp_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef queue_methods[] = {
    {"append",     (PyCFunction)queue_append,     METH_O,      append_doc    },
    {"appendleft", (PyCFunction)queue_appendleft, METH_O,      appendleft_doc},
    {"clear",      (PyCFunction)queue_clear,      METH_NOARGS, clear_doc     },
    {"extend",     (PyCFunction)queue_extend,     METH_O,      extend_doc    },
    {"index",      (PyCFunction)queue_index,      METH_O,      index_doc     },
    {"pop",        (PyCFunction)queue_pop,        METH_NOARGS, pop_doc       },
    {"popleft",    (PyCFunction)queue_popleft,    METH_NOARGS, popleft_doc   },
    {"remove",     (PyCFunction)queue_remove,     METH_O,      remove_doc    },
    {NULL,         NULL,                          0,           NULL          },
};

PyDoc_STRVAR(queue_doc,
"ReadyQueue()\n--\n\n"
"The handles of a loop that are ready to run, in order.");

static PyType_Slot queue_slots[] = {
    {Py_tp_doc,      (void *)queue_doc},
    {Py_tp_dealloc,  queue_dealloc    },
    {Py_tp_traverse, queue_traverse   },
    {Py_tp_clear,    queue_tp_clear   },
    {Py_tp_methods,  queue_methods    },
    {Py_tp_iter,     queue_iter       },
    {Py_tp_repr,     queue_repr       },
    {Py_sq_length,   queue_length     },
    {Py_sq_item,     queue_item       },
    {Py_sq_contains, queue_contains   },
    {0,              NULL             },
};

PyType_Spec ready_queue_spec = {
    .name = "pyepoll._epoll.ReadyQueue",
    .basicsize = sizeof(ReadyQueue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};
