/* Handle and TimerHandle: subclasses of asyncio's, which keep up to three arguments in the object. Their
 * attributes lie where asyncio's __slots__ put them; handle_type_init() checks that. */
#ifndef PYEPOLL_HANDLE_H
#define PYEPOLL_HANDLE_H

#include "aio/state.h"

#include <math.h>
#include <stdbool.h>

/* An asyncio.Handle: its slots lie in the order of their names. */
typedef struct {
    PyObject_HEAD
    PyObject *args; /* of our handles: NULL while the arguments are inline */
    PyObject *callback;
    PyObject *cancelled;
    PyObject *context;
    PyObject *loop;
    PyObject *repr;
    PyObject *source_traceback;
#if PY_VERSION_HEX < 0x030C0000
    PyObject *weakrefs;
#endif
} StockHandle;

/* An asyncio.TimerHandle. */
typedef struct {
    StockHandle base;
    PyObject *scheduled;
    PyObject *when;
} StockTimer;

enum { INLINE_ARGS = 3 };

typedef struct {
    int count;
    PyObject *items[INLINE_ARGS];
#ifndef Py_GIL_DISABLED
    ModuleState *module; /* with a reference: it has the list of spare handles */
#endif
} InlineArgs;

typedef struct {
    StockHandle base;
    InlineArgs inline_args;
} Handle;

typedef struct {
    StockTimer base;
    InlineArgs inline_args;
    double time;      /* when it is due, if that is a number; its `when` is NULL until it is asked for */
    bool has_time;    /* ... and it is: a float, and not NaN, with which asyncio's turn raises an error */
    Py_ssize_t index; /* where it is in the heap, as far as C knows: heap.c */
} Timer;

/* The arguments for a new handle; the context is NULL for a copy of the present one. */
typedef struct {
    PyObject *loop;
    PyObject *callback;
    PyObject *const *args;
    Py_ssize_t count;
    PyObject *context;
} Call;

/* A new handle or timer, which is due at `when`, or at `time` if that is NULL. NULL with an exception. */
PyObject *handle_new(AioState *state, const Call *call);
PyObject *timer_new(AioState *state, const Call *call, PyObject *when, double time);

/* Functions of the types. */
int handle_traverse(Handle *self, visitproc visit, void *arg);
int handle_clear(Handle *self);
void handle_dealloc(Handle *self);
int timer_traverse(Timer *self, visitproc visit, void *arg);
int timer_clear(Timer *self);
void timer_dealloc(Timer *self);

/* When a timer of ours is due, if it has a time: without a lock, and without the object in `when`, which
 * another thread may replace. */
static inline bool
timer_time(const Timer *self, double *time)
{
    if (!__atomic_load_n(&self->has_time, __ATOMIC_RELAXED)) {
        return false;
    }
    __atomic_load(&self->time, time, __ATOMIC_RELAXED);
    return true;
}

/* Note when it is due: for a new timer, and for a new `_when`. */
static inline void
timer_note_time(Timer *self, PyObject *when)
{
    double time = PyFloat_CheckExact(when) ? PyFloat_AS_DOUBLE(when) : NAN;
    bool has_time = !isnan(time);
    if (has_time) {
        __atomic_store(&self->time, &time, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&self->has_time, has_time, __ATOMIC_RELAXED);
}

static inline bool
is_our_timer(const LoopState *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->timer_type);
}

/* The object has the slots of asyncio.Handle, and runs as one: it is not of a subclass that is not known. */
static inline bool
is_known_handle(const LoopState *state, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    return type == state->handle_type || type == state->timer_type || type == state->stock_handle ||
           type == state->stock_timer;
}

static inline bool
is_known_timer(const LoopState *state, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    return type == state->timer_type || type == state->stock_timer;
}

/* The inline arguments of one of our handles; NULL for another's. */
static inline InlineArgs *
handle_inline(const LoopState *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->handle_type)  ? &((Handle *)object)->inline_args
           : Py_IS_TYPE(object, state->timer_type) ? &((Timer *)object)->inline_args
                                                   : NULL;
}

#endif
