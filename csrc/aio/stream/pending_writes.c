/* PendingWrites as a Python object: a loop has one, and calls it around each turn. */
#include "aio/stream/stream.h"

PyDoc_STRVAR(begin_doc,
"begin($self, gather, /)\n--\n\n"
"A turn of the loop begins in this thread. gather: whether write() may leave data to its end.");

static PyObject *
writes_begin(PyObject *object, PyObject *gather)
{
    PendingWrites *self = (PendingWrites *)object;
    int truth = PyObject_IsTrue(gather);
    if (truth < 0) {
        return NULL;
    }
    self->gather = truth != 0;
    self->thread = PyThread_get_thread_ident();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(end_doc,
"end($self, /)\n--\n\n"
"The turn ends: send what is pending. Raises what a protocol's callback raised to end the program.");

static PyObject *
writes_end(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PendingWrites *self = (PendingWrites *)object;
    int status = self->count > 0 ? stream_flush_all(self) : 0;
    self->thread = 0;
    return none_or_error(status);
}

PyDoc_STRVAR(flush_doc,
"flush($self, /)\n--\n\n"
"Send what is pending now, in the thread of the loop.");

static PyObject *
writes_flush(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PendingWrites *self = (PendingWrites *)object;
    bool ours = self->thread == PyThread_get_thread_ident();
    return none_or_error(ours ? stream_flush_all(self) : 0);
}

static int
writes_traverse(PyObject *object, visitproc visit, void *arg)
{
    PendingWrites *self = (PendingWrites *)object;
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->items[i]);
    }
    return 0;
}

static int
writes_clear(PyObject *object)
{
    PendingWrites *self = (PendingWrites *)object;
    Py_ssize_t count = self->count;
    self->count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_CLEAR(self->items[i]);
    }
    return 0;
}

static void
writes_dealloc(PyObject *object)
{
    PendingWrites *self = (PendingWrites *)object;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    writes_clear(object);
    PyMem_Free(self->items);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef writes_methods[] = {
    {"begin", writes_begin, METH_O,      begin_doc},
    {"end",   writes_end,   METH_NOARGS, end_doc  },
    {"flush", writes_flush, METH_NOARGS, flush_doc},
    {NULL,    NULL,         0,           NULL     },
};

PyDoc_STRVAR(writes_doc,
"PendingWrites()\n--\n\n"
"The transports of a loop that have data to send at the end of the turn.");

static PyType_Slot writes_slots[] = {
    {Py_tp_doc,      (void *)writes_doc},
    {Py_tp_new,      PyType_GenericNew },
    {Py_tp_traverse, writes_traverse   },
    {Py_tp_clear,    writes_clear      },
    {Py_tp_dealloc,  writes_dealloc    },
    {Py_tp_methods,  writes_methods    },
    {0,              NULL              },
};

PyType_Spec writes_spec = {
    .name = "pyepoll._epoll.PendingWrites",
    .basicsize = sizeof(PendingWrites),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writes_slots,
};
