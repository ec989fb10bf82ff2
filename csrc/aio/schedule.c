#include "aio/schedule.h"

#include "aio/clock.h"
#include "aio/globals.h"
#include "aio/heap.h"
#include "aio/override.h"

PyObject *
schedule_stock(EventLoop *self, int method, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const LoopState *state = &self->state->loop;
    if (state->stock_loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "import pyepoll.aio, which has the event loop");
        return NULL;
    }
    PyObject *function = PyObject_GetAttr((PyObject *)state->stock_loop, state->method_names[method]);
    PyObject *bound = function != NULL ? PyMethod_New(function, (PyObject *)self) : NULL;
    PyObject *result = bound != NULL ? PyObject_Vectorcall(bound, args, (size_t)count, names) : NULL;
    Py_XDECREF(bound);
    Py_XDECREF(function);
    return result;
}

bool
schedule_is_plain(EventLoop *self, uint64_t used)
{
    return loop_member(&self->closed) == Py_False && loop_member(&self->debug) == Py_False &&
           (loop_overridden(self) & used) == 0;
}

/* asyncio's C code has a string of its own for this name, which is not interned. */
static bool
is_context(const EventLoop *self, PyObject *name)
{
    static const char context[] = "context";
    const Py_ssize_t length = sizeof(context) - 1;
    return name == self->state->loop.names[LOOP_CONTEXT] ||
           (PyUnicode_IS_ASCII(name) && PyUnicode_GET_LENGTH(name) == length &&
            memcmp(PyUnicode_DATA(name), context, (size_t)length) == 0);
}

bool
schedule_parse(const EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int skip,
               Call *call)
{
    if (count <= skip) {
        return false;
    }
    *call = (Call){(PyObject *)self, args[skip], args + skip + 1, count - skip - 1, NULL};
    if (names == NULL || PyTuple_GET_SIZE(names) == 0) {
        return true;
    }
    PyObject *name = PyTuple_GET_ITEM(names, 0);
    if (PyTuple_GET_SIZE(names) != 1 || !is_context(self, name)) {
        return false;
    }
    call->context = args[count] != Py_None ? args[count] : NULL;
    return true;
}

/* Queue a new handle. The queue is held: the collector may run meanwhile, and code that replaces `_ready`. */
static PyObject *
add_handle(AioState *state, ReadyQueue *queue, const Call *call)
{
    Py_INCREF(queue);
    PyObject *handle = handle_new(state, call);
    if (handle != NULL && ready_put(queue, handle) < 0) {
        Py_CLEAR(handle);
    }
    Py_DECREF(queue);
    return handle;
}

static const uint64_t soon_hooks = HOOK(PRIVATE_CALL_SOON) | HOOK(CHECK_CLOSED) | BOTH_HOOKS(GET_DEBUG) |
                                   STOCK_HOOK(CALL_SOON);

PyObject *
schedule_soon(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Call call;
    ReadyQueue *queue;
    if (!schedule_is_plain(self, soon_hooks) || !schedule_parse(self, args, count, names, 0, &call) ||
        (queue = loop_queue(self)) == NULL) {
        return schedule_stock(self, CALL_SOON, args, count, names);
    }
    return add_handle(self->state, queue, &call);
}

int
schedule_directly(const AioState *state, const Call *call)
{
    EventLoop *self = (EventLoop *)call->loop;
    ReadyQueue *queue;
    if (!loop_is_ours(state, call->loop) || !schedule_is_plain(self, soon_hooks | HOOK(CALL_SOON)) ||
        (queue = loop_queue(self)) == NULL) {
        return 0;
    }
    PyObject *handle = add_handle(self->state, queue, call);
    Py_XDECREF(handle);
    return handle != NULL ? 1 : -1;
}

int
schedule_is_debug(const AioState *state, PyObject *loop)
{
    EventLoop *self = (EventLoop *)loop;
    if (!loop_is_ours(state, loop) || (loop_overridden(self) & BOTH_HOOKS(GET_DEBUG)) != 0) {
        return -1;
    }
    PyObject *debug = loop_member(&self->debug);
    return debug == Py_True ? 1 : debug == Py_False ? 0 : -1;
}

/* A timer of ours in the heap, which is held for the same reason as in add_handle(). */
static PyObject *
add_timer(EventLoop *self, PyObject *heap, const Call *call, PyObject *when, double time)
{
    Py_INCREF(heap);
    PyObject *timer = timer_new(self->state, call, when, time);
    if (timer != NULL && heap_push(&self->state->loop, heap, timer) < 0) {
        Py_CLEAR(timer);
    }
    Py_DECREF(heap);
    if (timer != NULL) {
        Py_XSETREF(((StockTimer *)timer)->scheduled, Py_NewRef(Py_True));
    }
    return timer;
}

static const uint64_t timer_hooks = HOOK(CHECK_CLOSED) | BOTH_HOOKS(GET_DEBUG);

PyObject *
schedule_at(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Call call;
    PyObject *heap;
    if (!schedule_is_plain(self, timer_hooks | STOCK_HOOK(CALL_AT)) ||
        !schedule_parse(self, args, count, names, 1, &call) || args[0] == Py_None ||
        (heap = loop_heap(self)) == NULL) {
        return schedule_stock(self, CALL_AT, args, count, names);
    }
    return add_timer(self, heap, &call, args[0], 0);
}

PyObject *
schedule_later(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const uint64_t used = timer_hooks | HOOK(CALL_AT) | BOTH_HOOKS(TIME) | STOCK_HOOK(CALL_AT) |
                          STOCK_HOOK(CALL_LATER);
    Call call;
    PyObject *heap;
    if (!schedule_is_plain(self, used) || !schedule_parse(self, args, count, names, 1, &call) ||
        !(PyFloat_CheckExact(args[0]) || PyLong_CheckExact(args[0])) ||
        !globals_have_stock_clock(&self->state->loop) || (heap = loop_heap(self)) == NULL) {
        return schedule_stock(self, CALL_LATER, args, count, names);
    }
    double delay = PyLong_CheckExact(args[0]) ? PyLong_AsDouble(args[0]) : PyFloat_AS_DOUBLE(args[0]);
    if (delay == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    return add_timer(self, heap, &call, NULL, clock_now() + delay);
}
