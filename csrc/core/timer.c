/* Timer: a timerfd. Its times are kept by the kernel alone. */
#include "core/timer.h"

#include "base/convert.h"
#include "base/convert_time.h"
#include "base/errors.h"
#include "core/fd_object.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    FdObject base;
    int clock;
} Timer;

static const int64_t second = 1000000000;

static struct timespec
timespec_of(int64_t nanoseconds)
{
    return (struct timespec){.tv_sec = nanoseconds / second, .tv_nsec = nanoseconds % second};
}

static double
seconds_of(struct timespec time)
{
    return (double)time.tv_sec + (double)time.tv_nsec / (double)second;
}

/* The arguments of timerfd_settime(2). */
typedef struct {
    int flags;
    struct itimerspec times;
} Setting;

static int
convert_interval(PyObject *object, int64_t *interval)
{
    *interval = 0;
    if (object == NULL) {
        return 0;
    }
    if (convert_time("interval", object, false, interval) < 0) {
        return -1;
    }
    if (*interval < 0 || *interval == INT64_MAX) {
        PyErr_Format(PyExc_ValueError,
                     "interval must be 0 (none) or a number of seconds up to 292 years, not %R", object);
        return -1;
    }
    return 0;
}

/* The first expiration, `delay` or `when`, which is called `name`, and the interval, which may be NULL. A
 * time that has passed means at once; to the kernel, 0 means never. */
static int
convert_setting(const char *name, PyObject *first, PyObject *interval, Setting *setting)
{
    int64_t value, period;
    if (convert_time(name, first, true, &value) < 0 || convert_interval(interval, &period) < 0) {
        return -1;
    }
    setting->times.it_value = timespec_of(value > 0 ? value : 1);
    setting->times.it_interval = timespec_of(period);
    return 0;
}

/* 0 or an errno. */
static int
set_time(int fd, const Setting *setting)
{
    int error = timerfd_settime(fd, setting->flags, &setting->times, NULL) < 0 ? errno : 0;
    /* The clock was set since the timer was made: the kernel says so once, although it has set the timer. */
    return error != ECANCELED                                               ? error
           : timerfd_settime(fd, setting->flags, &setting->times, NULL) < 0 ? errno
                                                                            : 0;
}

static PyObject *
timer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"delay", "interval", "clock", NULL};
    PyObject *delay = Py_None, *interval = NULL, *clock = NULL;
    Setting setting = {0};
    int number = CLOCK_MONOTONIC;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO$O:Timer", names, &delay, &interval, &clock) ||
        (clock != NULL && convert_int(clock, &number) < 0)) {
        return NULL;
    }
    PyObject *first = delay != Py_None ? delay : interval;
    if (first != NULL && convert_setting("delay", first, interval, &setting) < 0) {
        return NULL;
    }
    if (delay == Py_None && setting.times.it_interval.tv_sec == 0 && setting.times.it_interval.tv_nsec == 0) {
        setting = (Setting){0}; /* Timer(interval=0) */
    }
    int fd = timerfd_create(number, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0) {
        return os_error(errno, "timerfd_create(clock %d, CLOEXEC | NONBLOCK)", number);
    }
    Timer *self = (Timer *)fd_object_new(type, fd, "timer", "timerfd");
    if (self == NULL) {
        return NULL;
    }
    self->clock = number;
    int error = set_time(fd, &setting);
    if (error != 0) {
        Py_DECREF(self);
        return os_error(error, "timerfd_settime(fd %d)", fd);
    }
    return (PyObject *)self;
}

/* The common end of set, set_at and cancel. */
static PyObject *
timer_apply(Timer *self, const char *method, const Setting *setting)
{
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 ? set_time(fd, setting) : 0;
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        return fd_object_raise_closed(&self->base);
    }
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "%s: timerfd %d", method, fd);
}

PyDoc_STRVAR(set_doc,
"set($self, /, delay, interval=0)\n--\n\n"
"Start the timer: it expires in `delay` seconds, then every `interval` seconds if that is above 0.\n\n"
"Replaces the former setting; expirations that have not been read are forgotten. Both are seconds, int or\n"
"float; delays are rounded up to nanoseconds: a timer never expires early. A delay of 0 or below expires\n"
"at once, one above 292 years never.\n\n"
"Raises ValueError if an argument is nan, the interval is negative or the timer is closed; TypeError if\n"
"an argument is no number; OSError: EBADF if the fd has been closed elsewhere. See timerfd_settime(2).");

static PyObject *
timer_set(Timer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "set", 1, 2, {"delay", "interval"}
    };
    PyObject *values[ARGUMENTS];
    Setting setting = {0};
    if (convert_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        convert_setting("delay", values[0], values[1], &setting) < 0) {
        return NULL;
    }
    return timer_apply(self, "set", &setting);
}

PyDoc_STRVAR(set_at_doc,
"set_at($self, /, when, interval=0, cancel_on_set=False)\n--\n\n"
"Start the timer: it expires when its clock shows `when`, then every `interval` seconds if that is above\n"
"0.\n\n"
"`when` is seconds as time.clock_gettime(timer.clock) returns them, int or float; a time that has passed\n"
"expires at once. If the clock is CLOCK_REALTIME and is set to another time, the timer follows. With\n"
"cancel_on_set it is also reported then, and read() raises OSError with ECANCELED, once: compute the time\n"
"again. Otherwise as set().\n\n"
"Raises what set() raises; ValueError if cancel_on_set is true and the clock is not CLOCK_REALTIME. See\n"
"timerfd_settime(2).");

static PyObject *
timer_set_at(Timer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "set_at", 1, 3, {"when", "interval", "cancel_on_set"}
    };
    PyObject *values[ARGUMENTS];
    Setting setting = {.flags = TFD_TIMER_ABSTIME};
    if (convert_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        convert_setting("when", values[0], values[1], &setting) < 0) {
        return NULL;
    }
    int cancel = values[2] != NULL ? PyObject_IsTrue(values[2]) : 0;
    if (cancel < 0) {
        return NULL;
    }
    bool can_be_set = self->clock == CLOCK_REALTIME || self->clock == CLOCK_REALTIME_ALARM;
    if (cancel && !can_be_set) {
        PyErr_SetString(PyExc_ValueError,
                        "cancel_on_set needs a timer with clock=time.CLOCK_REALTIME: no other "
                        "clock can be set");
        return NULL;
    }
    setting.flags |= cancel ? TFD_TIMER_CANCEL_ON_SET : 0;
    return timer_apply(self, "set_at", &setting);
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Stop the timer, and forget expirations that have not been read: it is not readable until it is set\n"
"again.\n\n"
"Raises ValueError if the timer is closed; OSError: EBADF as set. See timerfd_settime(2).");

static PyObject *
timer_cancel(Timer *self, PyObject *Py_UNUSED(ignored))
{
    return timer_apply(self, "cancel", &(Setting){0});
}

PyDoc_STRVAR(read_doc,
"read($self, /)\n--\n\n"
"Return how often the timer has expired since the last read() or setting; 0 if it has not. Never blocks.\n\n"
"More than 1 means that the loop was busy for longer than the interval. Makes the timer unreadable again.\n\n"
"Raises ValueError if the timer is closed; OSError: ECANCELED if the clock was set, see set_at(); EBADF\n"
"as set. See timerfd_create(2).");

static PyObject *
timer_read(Timer *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t count = 0;
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 && read(fd, &count, sizeof(count)) < 0 ? errno : 0;
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        return fd_object_raise_closed(&self->base);
    }
    if (error == ECANCELED) {
        return os_error(error, "read: timerfd %d: the clock was set", fd);
    }
    return error == 0 || error == EAGAIN ? PyLong_FromUnsignedLongLong(count)
                                         : os_error(error, "read: timerfd %d", fd);
}

/* 0, or -1 with an exception. */
static int
get_time(Timer *self, const char *name, struct itimerspec *times)
{
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 && timerfd_gettime(fd, times) < 0 ? errno : 0;
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        fd_object_raise_closed(&self->base);
    }
    else if (error != 0) {
        os_error(error, "%s: timerfd %d", name, fd);
    }
    return fd >= 0 && error == 0 ? 0 : -1;
}

PyDoc_STRVAR(remaining_doc,
"remaining($self, /)\n--\n\n"
"Return the seconds until the timer expires next; None if it will not: a one-off timer that has expired,\n"
"or one that is not set.\n\n"
"Raises ValueError if the timer is closed; OSError: EBADF as set. See timerfd_gettime(2).");

static PyObject *
timer_remaining(Timer *self, PyObject *Py_UNUSED(ignored))
{
    struct itimerspec times;
    if (get_time(self, "remaining", &times) < 0) {
        return NULL;
    }
    bool armed = times.it_value.tv_sec != 0 || times.it_value.tv_nsec != 0;
    return armed ? PyFloat_FromDouble(seconds_of(times.it_value)) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(interval_doc,
"interval($self, /)\n--\n\n"
"Return the seconds between two expirations; 0.0 if the timer is a one-off or not set.\n\n"
"Raises ValueError if the timer is closed; OSError: EBADF as set. See timerfd_gettime(2).");

static PyObject *
timer_interval(Timer *self, PyObject *Py_UNUSED(ignored))
{
    struct itimerspec times;
    return get_time(self, "interval", &times) < 0 ? NULL : PyFloat_FromDouble(seconds_of(times.it_interval));
}

static PyObject *
timer_clock(Timer *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->clock);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef timer_methods[] = {
    {"set",       FAST(timer_set),               METH_FASTCALL | METH_KEYWORDS, set_doc             },
    {"set_at",    FAST(timer_set_at),            METH_FASTCALL | METH_KEYWORDS, set_at_doc          },
    {"cancel",    (PyCFunction)timer_cancel,     METH_NOARGS,                   cancel_doc          },
    {"read",      (PyCFunction)timer_read,       METH_NOARGS,                   read_doc            },
    {"remaining", (PyCFunction)timer_remaining,  METH_NOARGS,                   remaining_doc       },
    {"interval",  (PyCFunction)timer_interval,   METH_NOARGS,                   interval_doc        },
    {"fileno",    (PyCFunction)fd_object_fileno, METH_NOARGS,                   fd_object_fileno_doc},
    {"close",     (PyCFunction)fd_object_close,  METH_NOARGS,                   fd_object_close_doc },
    {"__enter__", (PyCFunction)fd_object_enter,  METH_NOARGS,                   fd_object_enter_doc },
    {"__exit__",  (PyCFunction)fd_object_exit,   METH_VARARGS,                  fd_object_exit_doc  },
    {NULL,        NULL,                          0,                             NULL                },
};

static PyGetSetDef timer_getset[] = {
    FD_OBJECT_CLOSED,
    {"clock", (getter)timer_clock, NULL, "The clock, such as time.CLOCK_MONOTONIC.", NULL},
    {NULL,    NULL,                NULL, NULL,                                       NULL},
};

PyDoc_STRVAR(timer_doc,
"Timer(delay=None, interval=0, *, clock=time.CLOCK_MONOTONIC)\n--\n\n"
"A timer that is a file: a timerfd, registered like any other fd, and readable once it has expired.\n\n"
"    tick = Timer(interval=0.5)\n"
"    ep.register(tick, Event.IN, data=tick)\n\n"
"Timer(2) expires once, in 2 seconds; Timer(2, 0.5) then every half second; Timer(interval=0.5) for the\n"
"first time in half a second; Timer() is not set. set() and set_at() explain the arguments.\n\n"
"The clock is time.CLOCK_MONOTONIC (stands still while the machine is suspended), time.CLOCK_BOOTTIME\n"
"(does not) or time.CLOCK_REALTIME (the time of day, which can be set). After a fork, parent and child\n"
"share the timer, like every fd: an expiration goes to the process that reads it first.\n\n"
"Raises ValueError and TypeError as set(); OverflowError if the clock does not fit into 32 bits; OSError:\n"
"EINVAL if there is no timer for the clock, EPERM if it needs a privilege, EMFILE or ENFILE if no fd is\n"
"left. See timerfd_create(2).");

static PyType_Slot timer_slots[] = {
    {Py_tp_doc,     (void *)timer_doc},
    {Py_tp_new,     timer_new        },
    {Py_tp_dealloc, fd_object_dealloc},
    {Py_tp_repr,    fd_object_repr   },
    {Py_tp_methods, timer_methods    },
    {Py_tp_getset,  timer_getset     },
    {0,             NULL             },
};

PyType_Spec timer_spec = {
    .name = "pyepoll.Timer",
    .basicsize = sizeof(Timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timer_slots,
};
