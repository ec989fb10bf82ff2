/* Signals: an eventfd that the handler of base/signal_watch.c writes to. */
#include "core/signals.h"

#include "base/convert.h"
#include "base/errors.h"
#include "base/module_state.h"
#include "base/signal_watch.h"
#include "core/fd_object.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    FdObject base;
    SignalSet signals;
    int watch;         /* of signal_watch_add(), until the fd is released */
    PyObject *members; /* tuple: the signals, in ascending order */
} Signals;

/* Refuse what cannot be caught, and what a handler must not return from: the instruction that was at fault
 * would run again. */
static int
check_signals(SignalSet signals)
{
    static const struct {
        int number;
        const char *text;
    } refused[] = {
        {SIGKILL, "SIGKILL cannot be caught"                                                 },
        {SIGSTOP, "SIGSTOP cannot be caught"                                                 },
        {SIGSEGV, "SIGSEGV reports a fault of the program, which would repeat it without end"},
        {SIGBUS,  "SIGBUS reports a fault of the program, which would repeat it without end" },
        {SIGFPE,  "SIGFPE reports a fault of the program, which would repeat it without end" },
        {SIGILL,  "SIGILL reports a fault of the program, which would repeat it without end" },
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if ((signals & signal_bit(refused[i].number)) != 0) {
            PyErr_Format(PyExc_ValueError, "Signals(): %s", refused[i].text);
            return -1;
        }
    }
    return 0;
}

static int
convert_signals(PyObject *numbers, SignalSet *signals)
{
    sigset_t set;
    bool given;
    if (convert_sigmask(numbers, &set, &given) < 0) {
        return -1;
    }
    *signals = 0;
    for (int number = 1; number <= SIGNALS; number++) {
        *signals |= sigismember(&set, number) == 1 ? signal_bit(number) : 0;
    }
    if (*signals == 0) {
        PyErr_SetString(PyExc_TypeError, "Signals() needs at least one signal");
        return -1;
    }
    return check_signals(*signals);
}

/* The member of signal.Signals, or an int where there is none, as for most real-time signals. A new
 * reference. */
static PyObject *
make_member(PyObject *known, int number)
{
    PyObject *member = NULL;
    PyObject *key = PyLong_FromLong(number);
    if (key == NULL || known == NULL || PyDict_GetItemRef(known, key, &member) == 0) {
        return key;
    }
    Py_DECREF(key);
    return member;
}

/* A tuple of the signals. A new reference. */
static PyObject *
make_members(const ModuleState *module, SignalSet signals)
{
    PyObject *list = PyList_New(0);
    int status = list != NULL ? 0 : -1;
    for (SignalSet left = signals; left != 0 && status == 0; left &= left - 1) {
        PyObject *member = make_member(module->package.signals, __builtin_ctzll(left) + 1);
        status = member != NULL ? PyList_Append(list, member) : -1;
        Py_XDECREF(member);
    }
    PyObject *members = status == 0 ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return members;
}

/* 0, or -1 with an exception; the object has the fd if it watches. */
static int
start_watch(Signals *self, int fd)
{
    int watch, error, refused;
    Py_BEGIN_ALLOW_THREADS
    watch = signal_watch_add(self->signals, fd, &error, &refused);
    Py_END_ALLOW_THREADS
    if (watch < 0) {
        os_error(error,
                 error == EBUSY ? "Signals(): signal %d belongs to another Signals object"
                                : "Signals(): sigaction(%d)",
                 refused);
        return -1;
    }
    self->watch = watch;
    return 0;
}

static PyObject *
signals_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    SignalSet signals;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Signals() takes no keyword arguments");
        return NULL;
    }
    ModuleState *module = module_state_of(type);
    PyObject *members = module != NULL && convert_signals(args, &signals) == 0 ? make_members(module, signals)
                                                                               : NULL;
    if (members == NULL) {
        return NULL;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        Py_DECREF(members);
        return os_error(errno, "eventfd(CLOEXEC | NONBLOCK)");
    }
    Signals *self = (Signals *)fd_object_new(type, fd, "signals object", "eventfd");
    if (self == NULL) {
        Py_DECREF(members);
        return NULL;
    }
    PyObject_GC_UnTrack(self); /* or gc.get_objects() would find it in another thread before it watches */
    self->signals = signals;
    self->members = members;
    self->watch = -1;
    if (start_watch(self, fd) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* 0 or an errno. */
static int
stop_watch(Signals *self)
{
    int error = 0;
    int fd = fd_object_release(&self->base);
    if (fd >= 0 && self->watch >= 0) {
        Py_BEGIN_ALLOW_THREADS
        error = signal_watch_remove(self->watch);
        Py_END_ALLOW_THREADS
    }
    else if (fd >= 0) {
        close(fd); /* start_watch() has failed */
    }
    return error;
}

static int
signals_traverse(Signals *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->members);
    return 0;
}

static void
signals_dealloc(Signals *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    stop_watch(self);
    Py_XDECREF(self->members);
    type->tp_free(self);
    Py_DECREF(type);
}

/* In a child whose eventfd is still the parent's. 0, or -1 with an exception. */
static int
renew_watch(Signals *self)
{
    int error = 0;
    if (signal_watch_is_ready(self->signals)) {
        return 0;
    }
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    guard_unlock(&self->base.guard);
    if (fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        error = signal_watch_renew(self->watch);
        Py_END_ALLOW_THREADS
    }
    if (error == EBADF) {
        os_error(error,
                 "fd %d, the signals object that this process inherited through fork, is not its eventfd",
                 fd);
    }
    else if (error != 0) {
        os_error(error, "cannot give the signals object inherited through fork an eventfd of this process");
    }
    return error == 0 ? 0 : -1;
}

/* Append the signals that were taken. 0, or -1 with an exception. */
static int
append_members(const Signals *self, SignalSet taken, PyObject *list)
{
    Py_ssize_t i = 0;
    for (SignalSet left = self->signals; left != 0; left &= left - 1, i++) {
        if ((taken & left & -left) != 0 && PyList_Append(list, PyTuple_GET_ITEM(self->members, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(read_doc,
"read($self, /)\n--\n\n"
"Return the signals that have arrived since the last read(), in ascending order; [] if none has. Never\n"
"blocks.\n\n"
"The elements are members of signal.Signals, or ints for real-time signals without a name. A signal that\n"
"has arrived several times is there once. Makes the object unreadable again.\n\n"
"Raises ValueError if the object is closed; OSError: EBADF if the fd has been closed elsewhere.");

static PyObject *
signals_read(Signals *self, PyObject *Py_UNUSED(ignored))
{
    eventfd_t count;
    SignalSet taken = 0;
    PyObject *list = renew_watch(self) == 0 ? PyList_New(0) : NULL;
    if (list == NULL) {
        return NULL;
    }
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 && eventfd_read(fd, &count) < 0 && errno != EAGAIN ? errno : 0;
    if (fd >= 0 && error == 0) {
        taken = signal_watch_take(self->signals);
    }
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        fd_object_raise_closed(&self->base);
    }
    else if (error != 0) {
        os_error(error, "read: eventfd %d", fd);
    }
    else if (append_members(self, taken, list) < 0) {
        signal_watch_put_back(taken);
    }
    else {
        return list;
    }
    Py_DECREF(list);
    return NULL;
}

PyDoc_STRVAR(fileno_doc,
"fileno($self, /)\n--\n\n"
"Return the fd. Raises ValueError if the object is closed; in a child that could not get an fd of its\n"
"own, the OSError.");

static PyObject *
signals_fileno(Signals *self, PyObject *Py_UNUSED(ignored))
{
    return renew_watch(self) == 0 ? fd_object_fileno(&self->base, NULL) : NULL;
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Restore the actions that the signals had, and close the fd; a second close does nothing.\n\n"
"A signal that has arrived and was not read is sent again, to the former action, as if it came after the\n"
"close. An action that something else has set meanwhile is left as it is. Unregister the object first:\n"
"see epoll(7), question 6.\n\n"
"Raises OSError: EBADF if the fd has been closed elsewhere.");

static PyObject *
signals_close(Signals *self, PyObject *Py_UNUSED(ignored))
{
    int error = stop_watch(self);
    return error == 0 ? Py_NewRef(Py_None) : os_error(error, "close eventfd");
}

static PyObject *
signals_exit(Signals *self, PyObject *Py_UNUSED(args))
{
    return signals_close(self, NULL);
}

static PyObject *
signals_members(Signals *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->members);
}

static PyObject *
signals_repr(Signals *self)
{
    char text[8 + SIGNALS * 3] = " signals";
    int length = (int)sizeof(" signals") - 1;
    for (SignalSet left = self->signals; left != 0; left &= left - 1) {
        length += snprintf(text + length, sizeof(text) - (size_t)length, "%c%d",
                           left == self->signals ? '=' : ',', __builtin_ctzll(left) + 1);
    }
    return fd_object_text(&self->base, text);
}

static PyMethodDef signals_methods[] = {
    {"read",      (PyCFunction)signals_read,    METH_NOARGS,  read_doc           },
    {"fileno",    (PyCFunction)signals_fileno,  METH_NOARGS,  fileno_doc         },
    {"close",     (PyCFunction)signals_close,   METH_NOARGS,  close_doc          },
    {"__enter__", (PyCFunction)fd_object_enter, METH_NOARGS,  fd_object_enter_doc},
    {"__exit__",  (PyCFunction)signals_exit,    METH_VARARGS, fd_object_exit_doc },
    {NULL,        NULL,                         0,            NULL               },
};

PyDoc_STRVAR(members_doc,
"The signals that are watched: a tuple, in ascending order.");

static PyGetSetDef signals_getset[] = {
    FD_OBJECT_CLOSED,
    {"signals", (getter)signals_members, NULL, members_doc, NULL},
    {NULL,      NULL,                    NULL, NULL,        NULL},
};

PyDoc_STRVAR(signals_doc,
"Signals(*signals)\n--\n\n"
"Signals as a file, registered like any other fd, and readable once a signal has arrived.\n\n"
"    signals = Signals(signal.SIGHUP, signal.SIGTERM)\n"
"    ep.register(signals, Event.IN, data=signals)\n\n"
"Replaces the action of the signals, in the whole process, until close(). No signal is lost, whichever\n"
"thread receives it and however many arrive; no thread has to block anything, and other programs that\n"
"this one starts inherit nothing. It can be made in any thread. signal.getsignal() does not see it, and\n"
"signal.signal() for the same signal takes the signal away from it. After a fork, the child's object\n"
"reports the child's signals only, under the same fd.\n\n"
"Raises TypeError without a signal; ValueError for a number that is no signal, SIGKILL, SIGSTOP, and\n"
"SIGSEGV, SIGBUS, SIGFPE and SIGILL, which report faults; OSError: EBUSY if another Signals object of the\n"
"process has one of them; EMFILE or ENFILE if no fd is left; OverflowError for a number above 32 bits.\n"
"See sigaction(2), eventfd(2).");

static PyType_Slot signals_slots[] = {
    {Py_tp_doc,      (void *)signals_doc},
    {Py_tp_new,      signals_new        },
    {Py_tp_traverse, signals_traverse   },
    {Py_tp_dealloc,  signals_dealloc    },
    {Py_tp_repr,     signals_repr       },
    {Py_tp_methods,  signals_methods    },
    {Py_tp_getset,   signals_getset     },
    {0,              NULL               },
};

PyType_Spec signals_spec = {
    .name = "pyepoll.Signals",
    .basicsize = sizeof(Signals),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = signals_slots,
};
