#include "aio/poll.h"

#include "aio/fds.h"
#include "aio/handle.h"
#include "aio/inbox.h"
#include "aio/override.h"
#include "base/convert.h"
#include "selector/selector_key.h"

#include <limits.h>
#include <math.h>

enum { FEW_EVENTS = 64 };

/* A turn is slow if it takes more nanoseconds than this for each of its events. asyncio needs about as much
 * for a small request and its reply: so beside long callbacks, turns of a few events do not get behind it. */
static const int64_t SLOW_NS = 25 * 1000;

LoopSelector *
poll_selector(const EventLoop *self)
{
    LoopState *state = &self->state->loop;
    PyObject *object = loop_member(&self->selector);
    return state->selector_type != NULL && object != NULL && Py_IS_TYPE(object, state->selector_type) &&
                   override_has_own_select(state, object)
               ? (LoopSelector *)object
               : NULL;
}

bool
poll_is_idle(const EventLoop *self)
{
    LoopSelector *selector = poll_selector(self);
    PyObject *handlers = loop_member(&self->signal_handlers);
    return selector != NULL && fds_count(selector) <= 1 && handlers != NULL && PyDict_CheckExact(handlers) &&
           PyDict_GET_SIZE(handlers) == 0;
}

static int64_t
nanoseconds(double timeout)
{
    return timeout < 0 ? NO_TIMEOUT : (int64_t)ceil(timeout * 1e9);
}

static PyObject *
timeout_object(double timeout)
{
    return timeout < 0 ? Py_NewRef(Py_None) : timeout == 0 ? PyLong_FromLong(0) : PyFloat_FromDouble(timeout);
}

/* The list of events. A new reference; NULL with an exception. */
static PyObject *
wait_events(EventLoop *self, double timeout)
{
    PyObject *selector = PyObject_GetAttrString((PyObject *)self, "_selector");
    PyObject *object = selector != NULL ? timeout_object(timeout) : NULL;
    PyObject *list = object != NULL
                         ? PyObject_CallMethodOneArg(selector, self->state->loop.names[LOOP_SELECT], object)
                         : NULL;
    Py_XDECREF(object);
    Py_XDECREF(selector);
    return list;
}

/* Queue the handles of a key's data, a pair. 1; 0 where anything is not as asyncio makes it, or a handle is
 * cancelled: nothing is queued; -1 with an exception. */
static int
queue_pair(const LoopState *state, ReadyQueue *queue, PyObject *pair, long mask)
{
    PyObject *handles[2];
    for (int i = 0; i < 2; i++) {
        handles[i] = (mask & (1 << i)) != 0 ? PyTuple_GET_ITEM(pair, i) : Py_None;
        if (handles[i] != Py_None &&
            (!is_known_handle(state, handles[i]) || ((StockHandle *)handles[i])->cancelled != Py_False)) {
            return 0;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (handles[i] != Py_None && ready_put(queue, handles[i]) < 0) {
            return -1;
        }
    }
    return 1;
}

/* The data of an event's key, a pair, and the event's mask: borrowed; NULL, without an exception, for an
 * event of another form. */
static PyObject *
data_of(PyObject *event, long *mask)
{
    PyObject *key = PyTuple_Check(event) && PyTuple_GET_SIZE(event) == 2 ? PyTuple_GET_ITEM(event, 0) : NULL;
    if (key == NULL || !PyTuple_Check(key) || PyTuple_GET_SIZE(key) != KEY_SIZE ||
        !PyLong_CheckExact(PyTuple_GET_ITEM(event, 1))) {
        return NULL;
    }
    int overflow;
    *mask = PyLong_AsLongAndOverflow(PyTuple_GET_ITEM(event, 1), &overflow);
    PyObject *data = PyTuple_GET_ITEM(key, KEY_DATA);
    return overflow == 0 && PyTuple_CheckExact(data) && PyTuple_GET_SIZE(data) == 2 ? data : NULL;
}

/* Leave the events from `start` on to asyncio's method. */
static int
process_rest(EventLoop *self, PyObject *events, Py_ssize_t start)
{
    PyObject *rest = PyList_GetSlice(events, start, PyList_GET_SIZE(events));
    PyObject *result = rest != NULL
                           ? PyObject_CallMethodOneArg((PyObject *)self,
                                                       self->state->loop.method_names[PROCESS_EVENTS], rest)
                           : NULL;
    Py_XDECREF(result);
    Py_XDECREF(rest);
    return result != NULL ? 0 : -1;
}

static int
process(EventLoop *self, ReadyQueue *queue, PyObject *events)
{
    if (!PyList_CheckExact(events)) {
        PyObject *result = PyObject_CallMethodOneArg((PyObject *)self,
                                                     self->state->loop.method_names[PROCESS_EVENTS], events);
        Py_XDECREF(result);
        return result != NULL ? 0 : -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(events); i++) {
        long mask = 0;
        PyObject *pair = data_of(PyList_GET_ITEM(events, i), &mask);
        int status = pair != NULL ? queue_pair(&self->state->loop, queue, pair, mask) : 0;
        if (status <= 0) {
            return status < 0 ? -1 : process_rest(self, events, i);
        }
    }
    return 0;
}

static int
append(void *queue, PyObject *handle)
{
    return ready_put(queue, handle);
}

/* How many events a turn takes at most. A few, so that the sockets and objects are still in the processor's
 * cache when the replies are sent, and the first reply does not wait for the last request. The kernel reports
 * the other events first in the next turn. After a slow turn, all events, as asyncio does: if a callback that
 * is always ready takes long, a few events in each turn would get a small share of the time. */
static int
events_to_take(const FullTurn *last)
{
    bool slow = last->events > 0 && monotonic_now() - last->start > last->events * SLOW_NS;
    return slow ? INT_MAX : FEW_EVENTS;
}

/* A wait begins. Whether its time is counted: any thread may switch that meanwhile. */
static bool
begin_idle(LoopCounters *counters, double timeout)
{
    bool timed = timeout != 0 && counters_are_timed(counters);
    if (timed) {
        counter_add(&counters->idle, -monotonic_now());
    }
    return timed;
}

static void
end_idle(LoopCounters *counters, bool timed)
{
    if (timed) {
        counter_add(&counters->idle, monotonic_now());
    }
}

/* Wait in a LoopSelector. The number of events, or -1 with an exception. */
static int64_t
poll_ours(EventLoop *self, ReadyQueue *queue, LoopSelector *selector, double timeout)
{
    FullTurn *last = &self->full_turn;
    FdsEvents events;
    bool timed = begin_idle(&self->counters, timeout);
    int status = fds_wait(selector, nanoseconds(timeout), events_to_take(last), &events);
    end_idle(&self->counters, timed);
    bool full = status == 0 && events.batch.count >= FEW_EVENTS;
    last->events = full ? events.batch.count : 0;
    last->start = full ? monotonic_now() : 0;
    inbox_stay_awake(self);
    int64_t count = status == 0 && ready_collect(queue) == 0 ? fds_queue(selector, &events, append, queue)
                                                             : -1;
    fds_end(&events);
    return count;
}

/* Wait in a selector of any kind. As above; 0 where it returned no list. */
static int64_t
poll_other(EventLoop *self, ReadyQueue *queue, double timeout)
{
    bool timed = begin_idle(&self->counters, timeout);
    PyObject *events = wait_events(self, timeout);
    end_idle(&self->counters, timed);
    inbox_stay_awake(self);
    int64_t count = events != NULL && PyList_CheckExact(events) ? PyList_GET_SIZE(events) : 0;
    int status = events != NULL && ready_collect(queue) == 0 ? process(self, queue, events) : -1;
    Py_XDECREF(events);
    return status == 0 ? count : -1;
}

int
poll_events(EventLoop *self, ReadyQueue *queue, double timeout)
{
    if (timeout != 0) {
        atomic_store(&self->sleep, ASLEEP);
        if (ready_collect(queue) < 0) {
            return -1;
        }
        timeout = queue->ring.count > 0 ? 0 : timeout;
    }
    LoopSelector *ours = (LoopSelector *)Py_XNewRef((PyObject *)poll_selector(self));
    int64_t count = ours != NULL ? poll_ours(self, queue, ours, timeout) : poll_other(self, queue, timeout);
    Py_XDECREF(ours);
    counter_add(&self->counters.events, Py_MAX(count, 0));
    return count >= 0 ? 0 : -1;
}
