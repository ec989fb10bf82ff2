/* Layer 1: each system call as one function over ints, the kernel's semantics and nothing else. */
#include "base/syscalls.h"
#include "buffer.h"
#include "convert.h"
#include "errors.h"
#include "module.h"
#include "params.h"

#include <errno.h>
#include <unistd.h>

/* The number of a new fd, which is closed again if there is no memory for it. */
static PyObject *
new_number(int fd)
{
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL) {
        close(fd);
    }
    return number;
}

PyDoc_STRVAR(create1_doc,
"epoll_create1($module, flags, /)\n--\n\n"
"Open an epoll and return its fd; close it with os.close.\n\n"
"flags is 0 or EPOLL_CLOEXEC.\n\n"
"Raises OSError: EINVAL for other flags, EMFILE or ENFILE when no fd is left, ENOMEM; OverflowError for\n"
"an int that does not fit 32 bits.\n"
"See epoll_create1(2), Linux 2.6.27.");

static PyObject *
raw_create1(PyObject *Py_UNUSED(module), PyObject *object)
{
    int flags;
    if (convert_int(object, &flags) < 0) {
        return NULL;
    }
    int fd = epoll_create1(flags);
    return fd >= 0 ? new_number(fd) : os_error(errno, "epoll_create1(0x%x)", (unsigned)flags);
}

PyDoc_STRVAR(create_doc,
"epoll_create($module, size, /)\n--\n\n"
"Open an epoll without EPOLL_CLOEXEC and return its fd.\n\n"
"size is ignored since Linux 2.6.8 but must be greater than 0.\n\n"
"Raises OSError: EINVAL for a size below 1, EMFILE or ENFILE when no fd is left, ENOMEM; OverflowError\n"
"for an int that does not fit 32 bits.\n"
"See epoll_create(2), Linux 2.5.44.");

static PyObject *
raw_create(PyObject *Py_UNUSED(module), PyObject *object)
{
    int size;
    if (convert_int(object, &size) < 0) {
        return NULL;
    }
    /* musl before 1.2.4 does not look at the size, and not every architecture has the system call. */
    int fd = size > 0 ? epoll_create(size) : (errno = EINVAL, -1);
    return fd >= 0 ? new_number(fd) : os_error(errno, "epoll_create(%d)", size);
}

PyDoc_STRVAR(ctl_doc,
"epoll_ctl($module, /, epfd, op, fd, events=0, data=0)\n--\n\n"
"Add, change or remove what the epoll epfd is to watch fd for.\n\n"
"op is EPOLL_CTL_ADD, EPOLL_CTL_MOD or EPOLL_CTL_DEL; events is a mask of 32 bits; data is the word\n"
"that comes back with each event, 0 to 2**64-1.\n\n"
"Raises OSError: EBADF, EEXIST, EINVAL, ELOOP, ENOENT, ENOMEM, ENOSPC (the limit of\n"
"/proc/sys/fs/epoll/max_user_watches) or EPERM (a file that cannot be polled), as epoll_ctl(2) says;\n"
"ValueError for a mask, and OverflowError for another int, that does not fit.");

static PyObject *
raw_ctl(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "epoll_ctl", 3, 5, {"epfd", "op", "fd", "events", "data"}
    };
    PyObject *given[ARGUMENTS];
    int epfd, op, fd;
    uint32_t events = 0;
    uint64_t data = 0;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 || convert_int(given[0], &epfd) < 0 ||
        convert_int(given[1], &op) < 0 || convert_int(given[2], &fd) < 0 ||
        (given[3] != NULL && convert_mask(given[3], &events) < 0) ||
        (given[4] != NULL && convert_word(given[4], &data) < 0)) {
        return NULL;
    }
    struct epoll_event event = {.events = events, .data.u64 = data};
    int status, error;
    Py_BEGIN_ALLOW_THREADS
    status = epoll_ctl(epfd, op, fd, &event);
    error = errno;
    Py_END_ALLOW_THREADS
    if (status < 0) {
        const char *action = op == EPOLL_CTL_ADD   ? "epoll_ctl: ADD"
                             : op == EPOLL_CTL_MOD ? "epoll_ctl: MOD"
                             : op == EPOLL_CTL_DEL ? "epoll_ctl: DEL"
                                                   : "epoll_ctl: unknown operation on";
        return ctl_error(error, op, action, epfd, fd, op == EPOLL_CTL_DEL ? NO_MASK : events);
    }
    Py_RETURN_NONE;
}

/* What the three waits have in common. */
typedef struct {
    int epfd;
    EventBuffer *buffer; /* borrowed from the caller's arguments */
    sigset_t set;
    bool masked;
} Wait;

/* Convert the arguments that every wait has, and claim the buffer last: whoever succeeds must end_wait. */
static int
begin_wait(PyObject *module, PyObject *epfd, PyObject *buffer, PyObject *sigmask, Wait *wait)
{
    ModuleState *state = PyModule_GetState(module);
    if (convert_int(epfd, &wait->epfd) < 0) {
        return -1;
    }
    if (!Py_IS_TYPE(buffer, state->buffer_type)) {
        PyErr_Format(PyExc_TypeError, "buffer must be an EventBuffer, not %.200s", Py_TYPE(buffer)->tp_name);
        return -1;
    }
    wait->buffer = (EventBuffer *)buffer;
    wait->masked = false;
    return sigmask != NULL && convert_sigmask(sigmask, &wait->set, &wait->masked) < 0
               ? -1
               : buffer_claim(wait->buffer);
}

static PyObject *
end_wait(const Wait *wait, const char *name, int count, int error)
{
    buffer_release(wait->buffer, Py_MAX(count, 0));
    if (count >= 0) {
        return PyLong_FromLong(count);
    }
    /* An interruption surfaces, but the handlers run first, as they do for every call of Python's. */
    if (error == EINTR && PyErr_CheckSignals() < 0) {
        return NULL;
    }
    return os_error(error, "%s(epfd %d)", name, wait->epfd);
}

PyDoc_STRVAR(wait_doc,
"epoll_wait($module, /, epfd, buffer, timeout_ms)\n--\n\n"
"Wait for events on the epoll epfd, put them into buffer and return their number.\n\n"
"timeout_ms is in milliseconds: 0 polls, -1 waits for ever.\n\n"
"Raises OSError: EBADF, EINVAL when epfd is no epoll, and EINTR as InterruptedError after the signal\n"
"handlers have run; BufferError when another thread's wait has the buffer; OverflowError for an int that\n"
"does not fit 32 bits. See epoll_wait(2).");

PyDoc_STRVAR(pwait_doc,
"epoll_pwait($module, /, epfd, buffer, timeout_ms, sigmask=None)\n--\n\n"
"As epoll_wait, with the signals of sigmask blocked for the time of the wait, atomically.\n\n"
"sigmask is an iterable of signal numbers, or None to leave the mask as it is.\n\n"
"Raises what epoll_wait raises, and ValueError for an invalid signal number.\n"
"See epoll_pwait(2), Linux 2.6.19.");

static PyObject *
wait_milliseconds(PyObject *module, const Signature *signature, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *given[ARGUMENTS] = {NULL};
    int timeout;
    Wait wait;
    if (convert_arguments(signature, args, nargs, kwnames, given) < 0 ||
        convert_int(given[2], &timeout) < 0 || begin_wait(module, given[0], given[1], given[3], &wait) < 0) {
        return NULL;
    }
    struct epoll_event *events = wait.buffer->events;
    int capacity = wait.buffer->capacity;
    int count, error;
    Py_BEGIN_ALLOW_THREADS
    count = epoll_pwait(wait.epfd, events, capacity, timeout, wait.masked ? &wait.set : NULL);
    error = errno;
    Py_END_ALLOW_THREADS
    return end_wait(&wait, signature->function, count, error);
}

static PyObject *
raw_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "epoll_wait", 3, 3, {"epfd", "buffer", "timeout_ms"}
    };
    return wait_milliseconds(module, &signature, args, nargs, kwnames);
}

static PyObject *
raw_pwait(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "epoll_pwait", 3, 4, {"epfd", "buffer", "timeout_ms", "sigmask"}
    };
    return wait_milliseconds(module, &signature, args, nargs, kwnames);
}

PyDoc_STRVAR(pwait2_doc,
"epoll_pwait2($module, /, epfd, buffer, timeout_ns=None, sigmask=None)\n--\n\n"
"As epoll_pwait, with a timeout of nanoseconds: None or -1 waits for ever.\n\n"
"Raises what epoll_pwait raises, and OSError: ENOSYS before Linux 5.11, EPERM under a seccomp profile\n"
"that does not know the call, EINVAL for other negative timeouts; OverflowError for one that does not\n"
"fit 64 bits. See epoll_pwait2(2).");

static PyObject *
raw_pwait2(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "epoll_pwait2", 2, 4, {"epfd", "buffer", "timeout_ns", "sigmask"}
    };
    PyObject *given[ARGUMENTS];
    Wait wait;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    long long timeout = -1;
    if (given[2] != NULL && given[2] != Py_None) {
        timeout = PyLong_AsLongLong(given[2]);
        if (timeout == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (begin_wait(module, given[0], given[1], given[3], &wait) < 0) {
        return NULL;
    }
    struct epoll_event *events = wait.buffer->events;
    int capacity = wait.buffer->capacity;
    int count, error;
    Py_BEGIN_ALLOW_THREADS
    count = sys_epoll_pwait2(wait.epfd, events, capacity, timeout, wait.masked ? &wait.set : NULL);
    error = errno;
    Py_END_ALLOW_THREADS
    return end_wait(&wait, signature.function, count, error);
}

PyDoc_STRVAR(get_params_doc,
"epoll_get_params($module, epfd, /)\n--\n\n"
"Return (busy_poll_usecs, busy_poll_budget, prefer_busy_poll) of the epoll epfd: EPIOCGPARAMS.\n\n"
"Raises OSError: EBADF, ENOTTY before Linux 6.9 or when epfd is no epoll, EOPNOTSUPP where the kernel is\n"
"built without CONFIG_NET_RX_BUSY_POLL; OverflowError for an int that does not fit 32 bits.\n"
"See ioctl_eventpoll(2).");

static PyObject *
raw_get_params(PyObject *Py_UNUSED(module), PyObject *object)
{
    int epfd;
    struct epoll_params params;
    if (convert_int(object, &epfd) < 0) {
        return NULL;
    }
    int error = params_read(epfd, &params);
    return error == 0 ? params_build(&params) : params_error(error, "EPIOCGPARAMS", epfd, &params);
}

PyDoc_STRVAR(set_params_doc,
"epoll_set_params($module, /, epfd, busy_poll_usecs, busy_poll_budget, prefer_busy_poll)\n--\n\n"
"Set how the epoll epfd polls network cards before it sleeps: EPIOCSPARAMS.\n\n"
"busy_poll_usecs is in microseconds, 0 to 2**31-1; busy_poll_budget is in packets, 0 to 65535, above\n"
"64 with CAP_NET_ADMIN only; prefer_busy_poll is a bool.\n\n"
"Raises OSError: as epoll_get_params, EINVAL for busy_poll_usecs above 2**31-1, and EPERM for the budget;\n"
"OverflowError for a number that does not fit the kernel's struct.\n"
"See ioctl_eventpoll(2).");

static PyObject *
raw_set_params(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "epoll_set_params", 4, 4, {"epfd", "busy_poll_usecs", "busy_poll_budget", "prefer_busy_poll"}
    };
    PyObject *given[ARGUMENTS];
    int epfd;
    struct epoll_params params;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 || convert_int(given[0], &epfd) < 0 ||
        params_convert(&given[1], &params) < 0) {
        return NULL;
    }
    int error = params_write(epfd, &params);
    return error == 0 ? Py_NewRef(Py_None) : params_error(error, "EPIOCSPARAMS", epfd, &params);
}

#define FAST METH_FASTCALL | METH_KEYWORDS

PyMethodDef raw_methods[] = {
    {"epoll_create1",    raw_create1,                                 METH_O, create1_doc   },
    {"epoll_create",     raw_create,                                  METH_O, create_doc    },
    {"epoll_ctl",        (PyCFunction)(void (*)(void))raw_ctl,        FAST,   ctl_doc       },
    {"epoll_wait",       (PyCFunction)(void (*)(void))raw_wait,       FAST,   wait_doc      },
    {"epoll_pwait",      (PyCFunction)(void (*)(void))raw_pwait,      FAST,   pwait_doc     },
    {"epoll_pwait2",     (PyCFunction)(void (*)(void))raw_pwait2,     FAST,   pwait2_doc    },
    {"epoll_get_params", raw_get_params,                              METH_O, get_params_doc},
    {"epoll_set_params", (PyCFunction)(void (*)(void))raw_set_params, FAST,   set_params_doc},
    {NULL,               NULL,                                        0,      NULL          },
};
