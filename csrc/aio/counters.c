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

/* Nanoseconds, with those of a wait that goes on. Never less than before: where the wait has ended meanwhile,
 * look again. */
static int64_t
read_idle(LoopCounters *self)
{
    int64_t idle, now;
    do {
        idle = atomic_load(&self->idle);
        now = monotonic_now();
    } while (idle != atomic_load(&self->idle));
    return idle < 0 ? idle + now : idle;
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
