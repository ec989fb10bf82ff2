/* Child: a pidfd, which is readable once its process has ended. */
#include "core/child.h"

#include "base/convert.h"
#include "base/errors.h"
#include "base/syscalls.h"
#include "core/fd_object.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/wait.h>

typedef struct {
    FdObject base;
    int pid;
    bool reap;
    bool ended;     /* these three: set by child_read(), guarded by the guard */
    bool known;     /* `returncode` is */
    int returncode; /* below 0: of a signal */
} Child;

static PyObject *
raise_pidfd_open(int error, int pid)
{
    return os_error(error, "pidfd_open(%d)%s", pid,
                    error == ENOSYS                      ? " needs Linux 5.3, and a sandbox that allows it"
                    : error == EINVAL || error == ENOENT ? ": this is a thread, or no process"
                                                         : "");
}

static PyObject *
child_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pid", "reap", NULL};
    PyObject *object;
    int pid, reap = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:Child", names, &object, &reap) ||
        convert_int(object, &pid) < 0) {
        return NULL;
    }
    if (pid <= 0) {
        PyErr_Format(PyExc_ValueError, "Child(): pid must be above 0, not %d", pid);
        return NULL;
    }
    int fd = sys_pidfd_open(pid);
    if (fd < 0) {
        return raise_pidfd_open(errno, pid);
    }
    Child *self = (Child *)fd_object_new(type, fd, "child", "pidfd");
    if (self != NULL) {
        self->pid = pid;
        self->reap = reap != 0;
    }
    return (PyObject *)self;
}

/* waitid(2) of a pidfd, which never takes another process for this one. Linux 5.3 has pidfds, but P_PIDFD
 * only came with 5.4. There, a child that can be sent a signal has not been reaped, so its pid is its own. */
static int
wait_for(const Child *self, siginfo_t *info)
{
    enum { OF_PIDFD = 3 }; /* P_PIDFD, which not every C library has */
    int fd = self->base.fd;
    int options = WEXITED | WNOHANG | __WALL | (self->reap ? 0 : WNOWAIT);
    int status = waitid((idtype_t)OF_PIDFD, (id_t)fd, info, options);
    if (status < 0 && errno == EINVAL) {
        bool reaped = sys_pidfd_send_signal(fd, 0) < 0 && errno == ESRCH;
        status = reaped ? -1 : waitid(P_PID, (id_t)self->pid, info, options);
        errno = reaped ? ECHILD : errno;
    }
    return status;
}

/* Whether a process that has no status for us has ended. */
static bool
is_readable(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return poll(&entry, 1, 0) > 0 && (entry.revents & POLLIN) != 0;
}

/* With the guard. 0 or an errno. */
static int
look(Child *self)
{
    siginfo_t info = {0};
    if (self->ended) {
        return 0;
    }
    if (wait_for(self, &info) == 0) {
        self->ended = self->known = info.si_pid != 0;
        self->returncode = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
        return 0;
    }
    if (errno != ECHILD) {
        return errno;
    }
    self->ended = is_readable(self->base.fd);
    return 0;
}

PyDoc_STRVAR(read_doc,
"read($self, /)\n--\n\n"
"Return whether the process has ended; if so, reap it and set `returncode`. Never blocks.\n\n"
"With reap=False the process stays a zombie until something else waits for it. `returncode` stays None if\n"
"the status is not for this process to know: the process is not its child, or was reaped elsewhere, or\n"
"SIGCHLD is ignored.\n\n"
"Raises ValueError if the object is closed; OSError: EBADF if the fd has been closed elsewhere. See\n"
"waitid(2).");

static PyObject *
child_read(Child *self, PyObject *Py_UNUSED(ignored))
{
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 ? look(self) : 0;
    bool ended = self->ended;
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        return fd_object_raise_closed(&self->base);
    }
    return error == 0 ? PyBool_FromLong(ended) : os_error(error, "read: waitid(pidfd %d)", fd);
}

PyDoc_STRVAR(send_signal_doc,
"send_signal($self, signum, /)\n--\n\n"
"Send a signal to the process, and never to another one that got its pid.\n\n"
"A process that has ended and has not been reaped ignores it.\n\n"
"Raises ProcessLookupError if the process has been reaped; PermissionError if it belongs to another user;\n"
"OverflowError if the signal does not fit into 32 bits; ValueError if the object is closed; OSError:\n"
"EINVAL if there is no such signal; EBADF as read. See pidfd_send_signal(2).");

static PyObject *
child_send_signal(Child *self, PyObject *object)
{
    int number;
    if (convert_int(object, &number) < 0) {
        return NULL;
    }
    guard_lock(&self->base.guard);
    int fd = self->base.fd;
    int error = fd >= 0 && sys_pidfd_send_signal(fd, number) < 0 ? errno : 0;
    guard_unlock(&self->base.guard);
    if (fd < 0) {
        return fd_object_raise_closed(&self->base);
    }
    return error == 0 ? Py_NewRef(Py_None)
                      : os_error(error, "send_signal %d to process %d (pidfd %d)", number, self->pid, fd);
}

static PyObject *
child_pid(Child *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->pid);
}

static PyObject *
child_returncode(Child *self, void *Py_UNUSED(closure))
{
    guard_lock(&self->base.guard);
    bool known = self->known;
    int returncode = self->returncode;
    guard_unlock(&self->base.guard);
    return known ? PyLong_FromLong(returncode) : Py_NewRef(Py_None);
}

static PyObject *
child_repr(Child *self)
{
    char text[64];
    guard_lock(&self->base.guard);
    bool ended = self->ended, known = self->known;
    int returncode = self->returncode;
    guard_unlock(&self->base.guard);
    PyOS_snprintf(text, sizeof(text),
                  known   ? " pid=%d returncode=%d"
                  : ended ? " pid=%d ended"
                          : " pid=%d",
                  self->pid, returncode);
    return fd_object_text(&self->base, text);
}

static PyMethodDef child_methods[] = {
    {"read",        (PyCFunction)child_read,        METH_NOARGS,  read_doc            },
    {"send_signal", (PyCFunction)child_send_signal, METH_O,       send_signal_doc     },
    {"fileno",      (PyCFunction)fd_object_fileno,  METH_NOARGS,  fd_object_fileno_doc},
    {"close",       (PyCFunction)fd_object_close,   METH_NOARGS,  fd_object_close_doc },
    {"__enter__",   (PyCFunction)fd_object_enter,   METH_NOARGS,  fd_object_enter_doc },
    {"__exit__",    (PyCFunction)fd_object_exit,    METH_VARARGS, fd_object_exit_doc  },
    {NULL,          NULL,                           0,            NULL                },
};

PyDoc_STRVAR(returncode_doc,
"The exit code, or minus the number of the signal that ended the process; None before read() has returned\n"
"True, and where the status is unknown.");

static PyGetSetDef child_getset[] = {
    FD_OBJECT_CLOSED,
    {"pid",        (getter)child_pid,        NULL, "The process, as given.", NULL},
    {"returncode", (getter)child_returncode, NULL, returncode_doc,           NULL},
    {NULL,         NULL,                     NULL, NULL,                     NULL},
};

PyDoc_STRVAR(child_doc,
"Child(pid, *, reap=True)\n--\n\n"
"The end of a process as a file: a pidfd, registered like any other fd, and readable once the process has\n"
"ended. No SIGCHLD, no handler.\n\n"
"    child = Child(os.posix_spawnp(\"sleep\", [\"sleep\", \"1\"], os.environ))\n"
"    ep.register(child, Event.IN, data=child)\n\n"
"`pid` is a child of this process that has not been reaped, or any other process, of which the end is\n"
"seen but not the status. `reap=False` leaves the zombie to an object that waits for it, such as\n"
"subprocess.Popen. After a fork, parent and child share the pidfd, like every fd; the child sees the end\n"
"only.\n\n"
"Raises ProcessLookupError if there is no such process; ValueError if pid is not above 0; OverflowError\n"
"if it does not fit into 32 bits; OSError: EINVAL, or ENOENT on newer kernels, if it is a thread; ENOSYS\n"
"before Linux 5.3; EPERM if a sandbox forbids it; EMFILE or ENFILE if no fd is left. See pidfd_open(2).");

static PyType_Slot child_slots[] = {
    {Py_tp_doc,     (void *)child_doc},
    {Py_tp_new,     child_new        },
    {Py_tp_dealloc, fd_object_dealloc},
    {Py_tp_repr,    child_repr       },
    {Py_tp_methods, child_methods    },
    {Py_tp_getset,  child_getset     },
    {0,             NULL             },
};

PyType_Spec child_spec = {
    .name = "pyepoll.Child",
    .basicsize = sizeof(Child),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = child_slots,
};
