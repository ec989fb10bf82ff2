/* The types of our handles. */
#include "aio/handle_type.h"

#include "aio/handle_methods.h"

#include <stddef.h>
#include <structmember.h>

static PyType_Slot handle_slots[] = {
    {Py_tp_doc,      (void *)"asyncio.Handle, with the arguments in the object."},
    {Py_tp_dealloc,  handle_dealloc                                             },
    {Py_tp_traverse, handle_traverse                                            },
    {Py_tp_clear,    handle_clear                                               },
    {Py_tp_methods,  handle_methods                                             },
    {Py_tp_getset,   handle_getset                                              },
    {0,              NULL                                                       },
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc,      (void *)"asyncio.TimerHandle, with the arguments in the object."},
    {Py_tp_dealloc,  timer_dealloc                                                   },
    {Py_tp_traverse, timer_traverse                                                  },
    {Py_tp_clear,    timer_clear                                                     },
    {Py_tp_methods,  timer_methods                                                   },
    {Py_tp_getset,   timer_getset                                                    },
    {0,              NULL                                                            },
};

static PyType_Spec handle_spec = {
    .name = "pyepoll._epoll.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

static PyType_Spec timer_spec = {
    .name = "pyepoll._epoll.TimerHandle",
    .basicsize = sizeof(Timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

/* Whether a type has a slot of its own at `offset`. */
static bool
has_slot_at(PyTypeObject *type, const char *name, Py_ssize_t offset)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, name);
    bool found = descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
                 PyDescr_TYPE(descriptor) == type &&
                 ((PyMemberDescrObject *)descriptor)->d_member->offset == offset;
    Py_XDECREF(descriptor);
    PyErr_Clear();
    return found;
}

static bool
has_known_layout(const LoopState *state)
{
    static const struct {
        const char *name;
        size_t offset;
    } slots[] = {
        {"_args",             offsetof(StockHandle, args)            },
        {"_callback",         offsetof(StockHandle, callback)        },
        {"_cancelled",        offsetof(StockHandle, cancelled)       },
        {"_context",          offsetof(StockHandle, context)         },
        {"_loop",             offsetof(StockHandle, loop)            },
        {"_repr",             offsetof(StockHandle, repr)            },
        {"_source_traceback", offsetof(StockHandle, source_traceback)},
    };
    PyTypeObject *handle = state->stock_handle, *timer = state->stock_timer;
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        if (!has_slot_at(handle, slots[i].name, (Py_ssize_t)slots[i].offset)) {
            return false;
        }
    }
    return handle->tp_basicsize == sizeof(StockHandle) && timer->tp_basicsize == sizeof(StockTimer) &&
           has_slot_at(timer, "_scheduled", offsetof(StockTimer, scheduled)) &&
           has_slot_at(timer, "_when", offsetof(StockTimer, when));
}

int
handle_type_init(PyObject *module, LoopState *state)
{
    if (!has_known_layout(state)) {
        return 0;
    }
    state->handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec,
                                                                  (PyObject *)state->stock_handle);
    state->timer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &timer_spec,
                                                                 (PyObject *)state->stock_timer);
    return state->handle_type != NULL && state->timer_type != NULL ? 0 : -1;
}
