/* PendingWrites as a Python object: a loop has one, and calls it around each turn. */
#include "aio/stream/stream.h"

PendingWrites *
stream_begin_turn(const AioState *state, PyObject *object, bool may_gather)
{
    if (object == NULL || !Py_IS_TYPE(object, state->stream.writes_type)) {
        return NULL;
    }
    PendingWrites *self = (PendingWrites *)Py_NewRef(object);
    self->gather = self->enabled && may_gather;
    self->thread = PyThread_get_thread_ident();
    return self;
}

int
stream_end_turn(PendingWrites *self, int status)
{
    if (self->count > 0) {
        PyObject *error = status < 0 ? PyErr_GetRaisedException() : NULL;
        int flushed = stream_flush_all(self);
        if (error != NULL) {
            PyErr_SetRaisedException(error);
        }
        status = flushed < 0 ? -1 : status;
    }
    self->thread = 0;
    return status;
}

static PyObject *
writes_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gather", NULL};
    int gather = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:PendingWrites", names, &gather)) {
        return NULL;
    }
    PendingWrites *self = (PendingWrites *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->enabled = gather != 0;
    }
    return (PyObject *)self;
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

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Gather no more in this turn; in the thread of the loop.");

static PyObject *
writes_stop(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PendingWrites *self = (PendingWrites *)object;
    if (self->thread == PyThread_get_thread_ident()) {
        self->gather = false;
    }
    Py_RETURN_NONE;
}

static int
writes_traverse(PyObject *object, visitproc visit, void *arg)
{
    PendingWrites *self = (PendingWrites *)object;
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = self->flushed; i < self->count; i++) {
        Py_VISIT(self->items[i]);
    }
    return 0;
}

static int
writes_clear(PyObject *object)
{
    PendingWrites *self = (PendingWrites *)object;
    while (self->flushed < self->count) {
        Py_DECREF(self->items[self->flushed++]);
    }
    self->flushed = self->count = 0;
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
    {"flush", writes_flush, METH_NOARGS, flush_doc},
    {"stop",  writes_stop,  METH_NOARGS, stop_doc },
    {NULL,    NULL,         0,           NULL     },
};

PyDoc_STRVAR(writes_doc,
"PendingWrites(gather=True)\n--\n\n"
"The transports of a loop that have data to send at the end of the turn.");

static PyType_Slot writes_slots[] = {
    {Py_tp_doc,      (void *)writes_doc},
    {Py_tp_new,      writes_new        },
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
