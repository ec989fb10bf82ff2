#include "aio/ask.h"

#include "aio/clock.h"
#include "aio/globals.h"
#include "aio/override.h"
#include "aio/schedule.h"

PyObject *
ask_debug(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *debug = loop_member(&self->debug);
    return (debug == Py_False || debug == Py_True) && (loop_overridden(self) & STOCK_HOOK(GET_DEBUG)) == 0
               ? Py_NewRef(debug)
               : schedule_stock(self, GET_DEBUG, (PyObject *[]){NULL}, 0, NULL);
}

PyObject *
ask_time(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    return (loop_overridden(self) & STOCK_HOOK(TIME)) == 0 && globals_have_stock_clock(&self->state->loop)
               ? PyFloat_FromDouble(clock_now())
               : schedule_stock(self, TIME, (PyObject *[]){NULL}, 0, NULL);
}

PyObject *
ask_may_answer(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(schedule_is_plain(self, HOOK(RUN_IN_EXECUTOR)));
}
