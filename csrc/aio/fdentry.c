/* FdEntry: the record of one fd in a LoopSelector, and the data of its registration in the core. */
#include "aio/fdtable.h"

static int
entry_traverse(FdEntry *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->fileobj);
    Py_VISIT(self->sock);
    Py_VISIT(self->handles[READER]);
    Py_VISIT(self->handles[WRITER]);
    Py_VISIT(self->data);
    Py_VISIT(self->key);
    return 0;
}

static int
entry_clear(FdEntry *self)
{
    Py_CLEAR(self->fileobj);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->handles[READER]);
    Py_CLEAR(self->handles[WRITER]);
    Py_CLEAR(self->data);
    Py_CLEAR(self->key);
    return 0;
}

static void
entry_dealloc(FdEntry *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    entry_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot entry_slots[] = {
    {Py_tp_traverse, entry_traverse},
    {Py_tp_clear,    entry_clear   },
    {Py_tp_dealloc,  entry_dealloc },
    {0,              NULL          },
};

PyType_Spec fdentry_spec = {
    .name = "pyepoll._epoll.FdEntry",
    .basicsize = sizeof(FdEntry),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = entry_slots,
};
