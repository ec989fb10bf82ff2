/* kcmp(2): whether two fds refer to one open file description. Nothing else can tell for files that share an
 * inode, as all eventfds, timerfds, signalfds and epolls do. */
#include "raw/raw.h"

#include "base/convert.h"
#include "base/errors.h"
#include "base/module_state.h"
#include "base/syscalls.h"

static int
convert_ints(const char *function, PyObject *const *args, Py_ssize_t nargs, int wanted, int values[])
{
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s expected %d arguments, got %zd", function, wanted, nargs);
        return -1;
    }
    for (int i = 0; i < wanted; i++) {
        if (convert_int(args[i], &values[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(same_file_doc,
"_same_file($module, pid, fd, other_pid, other_fd, /)\n--\n\n"
"Return whether fds of two processes are duplicates of each other.\n\n"
"Raises OSError: EBADF for an fd that is not open, EPERM without ptrace access to both processes or in a\n"
"sandbox, ESRCH for a process that is gone, ENOSYS without CONFIG_KCMP. See kcmp(2), Linux 3.5.");

static PyObject *
same_file(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    enum { KCMP_FILE = 0 };
    int of[4], error;
    long order;
    if (convert_ints("_same_file", args, nargs, 4, of) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    order = syscall(SYS_kcmp, of[0], of[2], KCMP_FILE, (unsigned long)(unsigned)of[1],
                    (unsigned long)(unsigned)of[3]);
    error = errno;
    Py_END_ALLOW_THREADS
    return order >= 0 ? PyBool_FromLong(order == 0)
                      : os_error(error, "kcmp(KCMP_FILE) of fd %d of process %d and fd %d of process %d",
                                 of[1], of[0], of[3], of[2]);
}

PyDoc_STRVAR(watches_file_doc,
"_watches_file($module, pid, epfd, tfd, nth, other_pid, fd, /)\n--\n\n"
"Return whether the file that the epoll epfd of a process watches under tfd is that of fd in another.\n\n"
"A number can be there more than once: nth counts from 0, in the order of fdinfo.\n\n"
"Raises OSError: ENOENT when the number is not watched, EINVAL when epfd is no epoll, EBADF for an fd\n"
"that is not open, EPERM without ptrace access to both processes or in a sandbox, ESRCH for a process\n"
"that is gone, ENOSYS without CONFIG_KCMP. See kcmp(2), Linux 4.13.");

static PyObject *
watches_file(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    int of[6], error;
    long order;
    if (convert_ints("_watches_file", args, nargs, 6, of) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    order = sys_kcmp_watched(of[0], of[1], of[2], of[3], of[4], of[5]);
    error = errno;
    Py_END_ALLOW_THREADS
    return order >= 0
               ? PyBool_FromLong(order == 0)
               : os_error(error,
                          "kcmp(KCMP_EPOLL_TFD) of fd %d of process %d and fd %d in epoll %d of process %d",
                          of[5], of[4], of[2], of[1], of[0]);
}

PyMethodDef kcmp_methods[] = {
    {"_same_file",    (PyCFunction)(void (*)(void))same_file,    METH_FASTCALL, same_file_doc   },
    {"_watches_file", (PyCFunction)(void (*)(void))watches_file, METH_FASTCALL, watches_file_doc},
    {NULL,            NULL,                                      0,             NULL            },
};
