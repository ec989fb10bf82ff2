#include "aio/counters.h"

/* Longer durations are cut: 292 years are as good as infinite. */
static const double longest = 9.2e9;

int
callback_time_begin(CallbackTime *self, PyObject *slow)
{
    double seconds = PyFloat_AsDouble(slow);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    self->limit = !(seconds < longest) ? INT64_MAX : seconds > 0 ? (int64_t)(seconds * 1e9) : 0;
    self->last = monotonic_now();
    return 0;
}

void
callback_time_check(CallbackTime *self, LoopCounters *counters)
{
    int64_t now = monotonic_now();
    if (now - self->last >= self->limit) {
        counter_add(&counters->slow_callbacks, 1);
    }
    self->last = now;
}

/* Raise a counter to `value`, unless it is higher. Its value then. In any thread. */
static int64_t
raise_to(Counter *counter, int64_t value)
{
    int64_t highest = counter_read(counter);
    while (value > highest && !atomic_compare_exchange_weak(counter, &highest, value)) {
    }
    return value > highest ? value : highest;
}

/* Nanoseconds, with those of a wait that goes on: if the wait ends meanwhile, look again. Never less than
 * before: without a GIL, the clock may be read here after the loop has read it for the end of the wait, and
 * before the loop has stored that. */
static int64_t
read_idle(LoopCounters *self)
{
    int64_t idle, now;
    do {
        idle = atomic_load(&self->idle);
        now = monotonic_now();
    } while (idle != atomic_load(&self->idle));
    return raise_to(&self->highest_idle, idle < 0 ? idle + now : idle);
}

PyObject *
counters_tuple(LoopCounters *self)
{
    double idle = (double)read_idle(self) / 1e9;
    return Py_BuildValue("(LLLLdO)", (long long)counter_read(&self->turns),
                         (long long)counter_read(&self->callbacks), (long long)counter_read(&self->events),
                         (long long)counter_read(&self->slow_callbacks), idle,
                         counters_are_timed(self) ? Py_True : Py_False);
}
