#include "aio/spare.h"

enum { SPARE_MAX = 1024 };

/* A dead handle: its first member is the link to the next. */
typedef struct {
    PyObject_HEAD
    PyObject *next;
} Spare;

#ifdef Py_GIL_DISABLED
/* Set at the beginning of a turn, not set back to the loop of before at its end: with greenlets that may be
 * dead by then. */
static _Thread_local EventLoop *running;

void
spare_set_running(EventLoop *loop)
{
    running = loop;
}

SpareHandles *
spare_of_thread(const PyTypeObject *type, int kind)
{
    if (running == NULL) {
        return NULL;
    }
    const LoopState *state = &running->state->loop;
    return type == (kind == KIND_HANDLE ? state->handle_type : state->timer_type) ? &running->spare[kind]
                                                                                  : NULL;
}
#endif

PyObject *
spare_take(SpareHandles *spare, PyTypeObject *type)
{
    PyObject *handle = spare->first;
    if (handle == NULL) {
        return NULL;
    }
    spare->first = ((Spare *)handle)->next;
    spare->count--;
    /* It still has its reference to the type: threads count these in one word, and wait for each other. */
    PyObject_Init(handle, &PyBaseObject_Type);
    Py_SET_TYPE(handle, type);
    return handle;
}

bool
spare_keep(SpareHandles *spare, PyObject *handle)
{
    if (spare->count >= SPARE_MAX) {
        return false;
    }
    ((Spare *)handle)->next = spare->first;
    spare->first = handle;
    spare->count++;
    return true;
}

int
spare_traverse(const SpareHandles *kinds, visitproc visit, void *arg)
{
    for (int kind = 0; kind < HANDLE_KINDS; kind++) {
        PyObject *handle = kinds[kind].first;
        for (; handle != NULL; handle = ((Spare *)handle)->next) {
            Py_VISIT(Py_TYPE(handle));
        }
    }
    return 0;
}

void
spare_free(SpareHandles *kinds)
{
    for (int kind = 0; kind < HANDLE_KINDS; kind++) {
        SpareHandles *spare = &kinds[kind];
        while (spare->first != NULL) {
            PyObject *handle = spare->first;
            PyTypeObject *type = Py_TYPE(handle);
            spare->first = ((Spare *)handle)->next;
            spare->count--;
            PyObject_GC_Del(handle);
            Py_DECREF(type);
        }
    }
}
