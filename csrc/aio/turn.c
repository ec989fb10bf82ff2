/*
 * A turn does what asyncio's BaseEventLoop._run_once() does, in its order. It leaves the turn to that method
 * where a part of it was replaced, in debug mode, and while cancelled timers of asyncio's own class are in
 * the heap, which that method removes in its own way.
 */
#include "aio/turn.h"

#include "aio/arrived.h"
#include "aio/clock.h"
#include "aio/globals.h"
#include "aio/handle.h"
#include "aio/heap.h"
#include "aio/inbox.h"
#include "aio/override.h"
#include "aio/poll.h"
#include "aio/process.h"
#include "aio/run.h"
#include "aio/schedule.h"
#include "aio/spare.h"
#include "aio/stream/stream.h"

#include <math.h>

/* asyncio's MAXIMUM_SELECT_TIMEOUT. */
static const double longest_wait = 24 * 3600;

/* Where there is nothing to poll for, every so many turns poll all the same: it lets other threads run. */
enum { POLL_EVERY = 64 };

static const uint64_t turn_hooks = HOOK(ADD_CALLBACK) | BOTH_HOOKS(GET_DEBUG) | HOOK(PROCESS_EVENTS) |
                                   BOTH_HOOKS(TIME) | STOCK_HOOK(RUN_ONCE);

/* The queue, if C may run the turn; NULL if asyncio's method has to. */
static ReadyQueue *
plain_queue(EventLoop *self)
{
    LoopState *state = &self->state->loop;
    bool replaced = (loop_overridden(self) & turn_hooks) != 0;
    ReadyQueue *queue = loop_queue(self);
    PyObject *scheduled = loop_heap(self);
    bool plain = queue != NULL && scheduled != NULL && self->debug == Py_False &&
                 self->timer_cancelled_count == state->zero && self->clock_resolution != NULL &&
                 PyFloat_CheckExact(self->clock_resolution) && !replaced &&
                 (PyList_GET_SIZE(scheduled) == 0 || globals_have_stock_clock(state));
    return plain ? queue : NULL;
}

/* Whether stop() was called: 1 or 0, -1 with an exception. */
static int
is_stopping(const EventLoop *self)
{
    PyObject *stopping = self->stopping;
    return stopping == Py_False  ? 0
           : stopping == Py_True ? 1
           : stopping != NULL    ? PyObject_IsTrue(stopping)
                                 : 0;
}

/* How long the turn may wait, in seconds. 1; 0 where asyncio's method has to find out, as the time of the
 * first timer is not a float; -1 with an exception. */
static int
find_timeout(EventLoop *self, const ReadyQueue *queue, double *timeout)
{
    int stopping = is_stopping(self);
    double when = 0;
    PyObject *list = loop_heap(self);
    bool timers = list == NULL || PyList_GET_SIZE(list) > 0;
    /* Even if the turn does not wait: queue_due() leaves such a timer where it is. */
    if (timers && (list == NULL || !heap_first(&self->state->loop, list, &when))) {
        return stopping < 0 ? -1 : 0;
    }
    if (stopping != 0 || queue->ring.count > 0 || arrived_any(self)) {
        *timeout = 0;
        return stopping < 0 ? -1 : 1;
    }
    *timeout = POLL_FOREVER;
    if (!timers) {
        return 1;
    }
    double left = when - clock_now();
    *timeout = left > longest_wait ? longest_wait : left > 0 ? left : 0;
    return 1;
}

/* Until when timers are due. False where the clock's resolution is not a float any more: the next turn, which
 * is asyncio's, raises its error. */
static bool
end_of_turn(const EventLoop *self, double *end)
{
    PyObject *object = loop_member(&self->clock_resolution);
    if (object == NULL || !PyFloat_CheckExact(object)) {
        return false;
    }
    double now = clock_now(), resolution = PyFloat_AS_DOUBLE(object);
#if PY_VERSION_HEX >= 0x030F0000
    double ulp = nextafter(now, INFINITY) - now;
    resolution = resolution > ulp ? resolution : ulp;
#endif
    *end = now + resolution;
    return true;
}

/* Queue the timers that are due. 0, or -1 with an exception. */
static int
queue_due(EventLoop *self, ReadyQueue *queue)
{
    LoopState *state = &self->state->loop;
    PyObject *list = loop_heap(self), *timer;
    double end;
    if (list == NULL || PyList_GET_SIZE(list) == 0 || !globals_have_stock_clock(state) ||
        !end_of_turn(self, &end)) {
        return 0;
    }
    int status = 0;
    while (status == 0 && (list = loop_heap(self)) != NULL &&
           (status = heap_pop_due(state, list, end, &timer)) > 0) {
        Py_XSETREF(((StockTimer *)timer)->scheduled, Py_NewRef(Py_False));
        status = ready_put(queue, timer);
        Py_DECREF(timer);
    }
    return status;
}

static int
begin_time(EventLoop *self, CallbackTime *time)
{
    PyObject *slow = PyObject_GetAttr((PyObject *)self, self->state->loop.names[LOOP_SLOW]);
    int status = slow != NULL ? callback_time_begin(time, slow) : -1;
    Py_XDECREF(slow);
    return status;
}

/* Run the handles that are queued now, not those that they queue. 0, or -1 with an exception: the rest stays
 * queued. */
static int
run_queued(EventLoop *self, ReadyQueue *queue)
{
    CallbackTime time;
    bool timed = counters_are_timed(&self->counters);
    int status = timed ? begin_time(self, &time) : 0;
    int64_t ran = 0;
    for (size_t left = queue->ring.count; left > 0 && queue->ring.count > 0 && status >= 0; left--) {
        PyObject *handle = ring_popleft(&queue->ring);
        status = run_handle(self->state, handle);
        Py_DECREF(handle);
        ran += status != 0;
        if (timed && status != 0) {
            callback_time_check(&time, &self->counters);
        }
    }
    counter_add(&self->counters.callbacks, ran);
    return status < 0 ? -1 : 0;
}

static int
turn_in_c(EventLoop *self, ReadyQueue *queue, double timeout)
{
    int status = timeout == 0 && counter_read(&self->counters.turns) % POLL_EVERY != 0 && poll_is_idle(self)
                     ? PyErr_CheckSignals()
                     : poll_events(self, queue, timeout);
    if (status == 0 && arrived_any(self)) {
        status = arrived_queue(self, queue);
    }
    if (status == 0) {
        status = queue_due(self, queue);
    }
    return status == 0 ? run_queued(self, queue) : -1;
}

/* Count what asyncio's turn has done, as far as its queue and its selector are ours. */
static void
count_stock_turn(LoopCounters *counters, ReadyQueue *queue, LoopSelector *selector)
{
    if (queue != NULL) {
        counter_add(&counters->callbacks, counter_take(&queue->popped));
    }
    if (selector != NULL) {
        counter_add(&counters->events, counter_take(&selector->selected.events));
        int64_t idle = counter_take(&selector->selected.idle);
        counter_add(&counters->idle, counters_are_timed(counters) ? idle : 0);
    }
}

/* asyncio's own turn. */
static int
turn_in_python(EventLoop *self)
{
    atomic_store(&self->sleep, OUTSIDE);
    ReadyQueue *queue = (ReadyQueue *)Py_XNewRef((PyObject *)loop_queue(self));
    LoopSelector *selector = (LoopSelector *)Py_XNewRef((PyObject *)poll_selector(self));
    PyObject *result = arrived_queue(self, queue) == 0
                           ? schedule_stock(self, RUN_ONCE, (PyObject *[]){NULL}, 0, NULL)
                           : NULL;
    count_stock_turn(&self->counters, queue, selector);
    Py_XDECREF(selector);
    Py_XDECREF(queue);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* One turn, without the writes that it gathers. 0, or -1 with an exception. */
static int
turn_of_callbacks(EventLoop *self)
{
    ReadyQueue *queue = plain_queue(self);
    if (queue == NULL) {
        return turn_in_python(self);
    }
    inbox_stay_awake(self);
    Py_INCREF(queue);
    double timeout = 0;
    int status = ready_collect(queue) < 0 ? -1 : find_timeout(self, queue, &timeout);
    if (status > 0) {
        status = turn_in_c(self, queue, timeout);
    }
    else if (status == 0) {
        status = turn_in_python(self);
    }
    Py_DECREF(queue);
    return status;
}

/* One turn. 0, or -1 with an exception. */
static int
turn(EventLoop *self)
{
    counter_add(&self->counters.turns, 1);
    spare_set_running(self);
    PendingWrites *writes = stream_begin_turn(self->state, self->pending_writes, self->debug == Py_False);
    int status = turn_of_callbacks(self);
    if (writes != NULL) {
        status = stream_end_turn(writes, status);
        Py_DECREF(writes);
    }
    return status;
}

static unsigned long
swap_owner(EventLoop *self, unsigned long thread)
{
#ifdef Py_GIL_DISABLED
    ReadyQueue *queue = loop_queue(self);
    if (queue != NULL) {
        return atomic_exchange(&queue->owner, thread);
    }
#else
    (void)self;
    (void)thread;
#endif
    return 0;
}

static bool
is_replaced(EventLoop *self)
{
    return (loop_overridden(self) & HOOK(RUN_ONCE)) != 0;
}

/* If the next turn is not ours, it knows nothing of arrived.h. 0, or -1 with an exception. */
static int
hand_over(EventLoop *self)
{
    return arrived_any(self) && is_replaced(self) ? arrived_queue(self, loop_queue(self)) : 0;
}

PyObject *
turn_run_once(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    bool all = self->all_turns;
    self->all_turns = false;
    int sleep = atomic_load(&self->sleep);
    unsigned long owner = swap_owner(self, PyThread_get_thread_ident());
    int status = turn(self);
    while (all && status == 0 && (status = is_stopping(self)) == 0 && !is_replaced(self)) {
        status = turn(self);
    }
    if (status >= 0 && hand_over(self) < 0) {
        status = -1;
    }
    spare_set_running(NULL);
    swap_owner(self, owner);
    atomic_store(&self->sleep, sleep);
    return status >= 0 ? Py_NewRef(Py_None) : NULL;
}

PyObject *
turn_run_forever(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    if (process_check(self->epoch) < 0 || hand_over(self) < 0) {
        return NULL;
    }
    /* If it runs already, maybe in another thread, asyncio's method raises. */
    bool starts = loop_member(&self->thread_id) == Py_None;
    if (starts) {
        self->all_turns = !is_replaced(self);
    }
    PyObject *result = schedule_stock(self, RUN_FOREVER, (PyObject *[]){NULL}, 0, NULL);
    if (starts) {
        self->all_turns = false;
    }
    return result;
}
