#include "errors.h"

#include "base/fdinfo.h"
#include "base/syscalls.h"
#include "flags.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static PyObject *
raise_os_error(int error, PyObject *text)
{
    if (text == NULL) {
        return NULL;
    }
    PyObject *exception = PyObject_CallFunction(PyExc_OSError, "iN", error, text);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

/* The system's message, which is in the encoding of the locale. A new reference. */
static PyObject *
system_text(int error)
{
    return PyUnicode_DecodeLocale(strerror(error), "surrogateescape");
}

PyObject *
os_error(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *what = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *why = what != NULL ? system_text(error) : NULL;
    PyObject *text = why != NULL ? PyUnicode_FromFormat("%U: %U", what, why) : NULL;
    Py_XDECREF(why);
    Py_XDECREF(what);
    return raise_os_error(error, text);
}

/* The limit that ENOSPC speaks of. */
static void
explain_watch_limit(char *cause, size_t size)
{
    static const char path[] = "/proc/sys/fs/epoll/max_user_watches";
    long limit = 0;
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%ld", &limit) != 1) {
            limit = 0;
        }
        fclose(file);
    }
    if (limit > 0) {
        snprintf(cause, size, "this user may watch %ld files in all, %s", limit, path);
    }
    else {
        snprintf(cause, size, "this user may watch no more files, see %s", path);
    }
}

/* What kind of file refuses to be polled. os.fstat and not fstat: the symbol that fstat links to
 * on a new glibc is missing from an old one. */
static void
explain_file(int fd, char *cause, size_t size)
{
    const char *kind = "a file of this kind";
    PyObject *os = PyImport_ImportModule("os");
    PyObject *status = os != NULL ? PyObject_CallMethod(os, "fstat", "i", fd) : NULL;
    PyObject *value = status != NULL ? PyObject_GetAttrString(status, "st_mode") : NULL;
    long mode = value != NULL ? PyLong_AsLong(value) : 0;
    Py_XDECREF(value);
    Py_XDECREF(status);
    Py_XDECREF(os);
    PyErr_Clear();
    if (S_ISREG(mode)) {
        kind = "a regular file";
    }
    else if (S_ISDIR(mode)) {
        kind = "a directory";
    }
    else if (S_ISCHR(mode)) {
        kind = "a device that never blocks, such as /dev/null,";
    }
    snprintf(cause, size, "%s is always ready and cannot be polled", kind);
}

static void
explain_invalid(int op, int epfd, int fd, uint32_t mask, char *cause, size_t size)
{
    const uint32_t beside_exclusive = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET |
                                      EPOLLEXCLUSIVE;
    char refused[FLAGS_TEXT];
    if (fd == epfd) {
        snprintf(cause, size, "an epoll cannot watch itself");
    }
    else if (fdinfo_is_epoll(epfd) == EINVAL) {
        snprintf(cause, size, "fd %d is not an epoll", epfd);
    }
    else if ((mask & EPOLLEXCLUSIVE) == 0 && op != EPOLL_CTL_MOD && fdinfo_is_epoll(fd) == 0) {
        snprintf(cause, size,
                 sys_same_file(fd, epfd)
                     ? "an epoll cannot watch itself, and fd %d is a duplicate of it"
                     : "fd %d is this epoll itself, or too many epolls watch it or its files",
                 fd);
    }
    else if ((mask & EPOLLEXCLUSIVE) == 0) {
        snprintf(cause, size,
                 op == EPOLL_CTL_MOD ? "a registration with EXCLUSIVE cannot be modified or rearmed"
                                     : "the kernel refuses this combination");
    }
    else if (op == EPOLL_CTL_MOD) {
        snprintf(cause, size, "EXCLUSIVE cannot be modified or rearmed: unregister, then register");
    }
    else if ((mask & ~beside_exclusive) != 0) {
        flags_text(mask & ~beside_exclusive, refused);
        snprintf(cause, size, "EXCLUSIVE cannot be combined with %s", refused);
    }
    else {
        snprintf(cause, size, "EXCLUSIVE cannot watch another epoll");
    }
}

/* Why epoll_ctl failed, as far as it can be told; an empty text where the system's message says all. */
static void
explain(int error, int op, int epfd, int fd, uint32_t mask, char *cause, size_t size)
{
    cause[0] = '\0';
    switch (error) {
    case EBADF:
        if (fcntl(epfd, F_GETFD) >= 0 && fcntl(fd, F_GETFD) >= 0) {
            snprintf(cause, size, "fd %d was opened with O_PATH", fd);
        }
        else {
            snprintf(cause, size, "fd %d is not open", fcntl(epfd, F_GETFD) < 0 ? epfd : fd);
        }
        break;
    case EEXIST:
        snprintf(cause, size, "fd %d is registered already: modify it", fd);
        break;
    case ENOENT:
        snprintf(cause, size, "fd %d is not registered", fd);
        break;
    case EPERM:
        if (fdinfo_is_epoll(epfd) != EINVAL && sys_epoll_ctl_denied(epfd) == EPERM) {
            snprintf(cause, size, "the system call is forbidden, by a seccomp filter or the like");
        }
        else {
            explain_file(fd, cause, size);
        }
        break;
    case EINVAL:
        explain_invalid(op, epfd, fd, mask, cause, size);
        break;
    case ELOOP:
        snprintf(cause, size,
                 "epolls would watch each other in a circle, or nest more than 5 deep; an Epoll in an Epoll "
                 "counts twice");
        break;
    case ENOSPC:
        explain_watch_limit(cause, size);
        break;
    default:
        break;
    }
}

PyObject *
ctl_error(int error, int op, const char *action, int epfd, int fd, uint32_t mask)
{
    char cause[256];
    char names[FLAGS_TEXT];
    explain(error, op, epfd, fd, mask, cause, sizeof(cause));
    flags_text(mask, names);
    PyObject *why = system_text(error);
    PyObject *text = why != NULL
                         ? PyUnicode_FromFormat(
                               "%s fd %d%s%s%s: %U%s%s%s", action, fd, op != EPOLL_CTL_DEL ? " (" : "",
                               op != EPOLL_CTL_DEL ? names : "", op != EPOLL_CTL_DEL ? ")" : "", why,
                               cause[0] != '\0' ? " (" : "", cause, cause[0] != '\0' ? ")" : "")
                         : NULL;
    Py_XDECREF(why);
    return raise_os_error(error, text);
}
