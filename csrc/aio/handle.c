#include "aio/handle.h"

#include "aio/spare.h"

/* The dead handles that this thread may use, or NULL. */
static SpareHandles *
spare_of(LoopState *state, PyTypeObject *type, int kind)
{
#ifdef Py_GIL_DISABLED
    (void)state;
    return spare_of_thread(type, kind);
#else
    (void)type;
    return state != NULL ? &state->spare[kind] : NULL;
#endif
}

/* Take a dead handle, or allocate one. Its members are not set. */
static PyObject *
allocate(LoopState *state, PyTypeObject *type, int kind)
{
    if (module_type(type) == NULL) {
        return NULL;
    }
    SpareHandles *spare = spare_of(state, type, kind);
    PyObject *handle = spare != NULL ? spare_take(spare, type) : NULL;
    return handle != NULL ? handle : (PyObject *)PyObject_GC_New(StockHandle, type);
}

/* Set the members that handles and timers share. 0, or -1 with an exception: they are set all the same. */
static int
fill(AioState *state, StockHandle *self, InlineArgs *inline_args, const Call *call)
{
    self->args = NULL;
    self->callback = Py_NewRef(call->callback);
    self->cancelled = Py_NewRef(Py_False);
    self->context = call->context != NULL ? Py_NewRef(call->context) : PyContext_CopyCurrent();
    self->loop = Py_NewRef(call->loop);
    self->repr = Py_NewRef(Py_None);
    self->source_traceback = Py_NewRef(Py_None);
#if PY_VERSION_HEX < 0x030C0000
    self->weakrefs = NULL;
#endif
#ifndef Py_GIL_DISABLED
    inline_args->module = module_hold(state->owner);
#else
    (void)state;
#endif
    inline_args->count = 0;
    if (call->count <= INLINE_ARGS) {
        for (; inline_args->count < call->count; inline_args->count++) {
            inline_args->items[inline_args->count] = Py_NewRef(call->args[inline_args->count]);
        }
        return self->context != NULL ? 0 : -1;
    }
    self->args = PyTuple_New(call->count);
    for (Py_ssize_t i = 0; self->args != NULL && i < call->count; i++) {
        PyTuple_SET_ITEM(self->args, i, Py_NewRef(call->args[i]));
    }
    return self->context != NULL && self->args != NULL ? 0 : -1;
}

static PyObject *
finish(PyObject *self, int status)
{
    PyObject_GC_Track(self);
    if (status < 0) {
        Py_CLEAR(self);
    }
    return self;
}

PyObject *
handle_new(AioState *state, const Call *call)
{
    PyObject *self = allocate(&state->loop, state->loop.handle_type, KIND_HANDLE);
    return self != NULL ? finish(self, fill(state, (StockHandle *)self, &((Handle *)self)->inline_args, call))
                        : NULL;
}

PyObject *
timer_new(AioState *state, const Call *call, PyObject *when, double time)
{
    PyObject *self = allocate(&state->loop, state->loop.timer_type, KIND_TIMER);
    if (self == NULL) {
        return NULL;
    }
    Timer *timer = (Timer *)self;
    timer->base.scheduled = Py_NewRef(Py_False);
    timer->base.when = Py_XNewRef(when);
    timer->time = time;
    timer->has_time = !isnan(time);
    if (when != NULL) {
        timer_note_time(timer, when);
    }
    timer->index = -1;
    return finish(self, fill(state, &timer->base.base, &timer->inline_args, call));
}

static void
inline_clear(InlineArgs *self)
{
    while (self->count > 0) {
        Py_DECREF(self->items[--self->count]);
    }
}

static int
inline_traverse(const InlineArgs *self, visitproc visit, void *arg)
{
    for (int i = 0; i < self->count; i++) {
        Py_VISIT(self->items[i]);
    }
#ifndef Py_GIL_DISABLED
    Py_VISIT(self->module->object);
#endif
    return 0;
}

static int
stock_traverse(StockHandle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->args);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->repr);
    Py_VISIT(self->source_traceback);
    return 0;
}

static int
stock_clear(StockHandle *self)
{
    Py_CLEAR(self->args);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->cancelled);
    Py_CLEAR(self->context);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->repr);
    Py_CLEAR(self->source_traceback);
    return 0;
}

static bool
has_weakrefs(PyObject *self)
{
#if PY_VERSION_HEX < 0x030C0000
    return ((StockHandle *)self)->weakrefs != NULL;
#else
    (void)self;
    return true;
#endif
}

/* Keep the memory of a handle whose members are cleared, or free it. */
static void
release(LoopState *state, PyObject *self, int kind)
{
    PyTypeObject *type = Py_TYPE(self);
    SpareHandles *spare = spare_of(state, type, kind);
    if (spare == NULL || !spare_keep(spare, self)) {
        PyObject_GC_Del(self);
        Py_DECREF(type);
    }
}

static void
destroy(PyObject *self, const InlineArgs *inline_args, int kind)
{
#ifndef Py_GIL_DISABLED
    ModuleState *module = inline_args->module;
    /* Not in a module that has been cleared: the type, which the memory is freed by, may die before it. */
    bool cleared = module->aio == NULL || module->aio->loop.handle_type == NULL;
    release(cleared ? NULL : &module->aio->loop, self, kind);
    module_drop(module);
#else
    (void)inline_args;
    release(NULL, self, kind);
#endif
}

int
handle_traverse(Handle *self, visitproc visit, void *arg)
{
    int status = inline_traverse(&self->inline_args, visit, arg);
    return status == 0 ? stock_traverse(&self->base, visit, arg) : status;
}

int
handle_clear(Handle *self)
{
    inline_clear(&self->inline_args);
    return stock_clear(&self->base);
}

/* The trashcan: an argument may be a handle that has a handle as its argument, and so on. */
void
handle_dealloc(Handle *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, handle_dealloc) if (has_weakrefs((PyObject *)self))
    {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    handle_clear(self);
    destroy((PyObject *)self, &self->inline_args, KIND_HANDLE);
    Py_TRASHCAN_END
}

int
timer_traverse(Timer *self, visitproc visit, void *arg)
{
    Py_VISIT(self->base.when);
    int status = inline_traverse(&self->inline_args, visit, arg);
    return status == 0 ? stock_traverse(&self->base.base, visit, arg) : status;
}

int
timer_clear(Timer *self)
{
    Py_CLEAR(self->base.scheduled);
    Py_CLEAR(self->base.when);
    inline_clear(&self->inline_args);
    return stock_clear(&self->base.base);
}

void
timer_dealloc(Timer *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, timer_dealloc) if (has_weakrefs((PyObject *)self))
    {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    timer_clear(self);
    destroy((PyObject *)self, &self->inline_args, KIND_TIMER);
    Py_TRASHCAN_END
}
