#include "base/errors.h"

#include "base/fdinfo.h"
#include "base/flags.h"
#include "base/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

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

/* The limit that ENOSPC refers to. */
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

/* st_mode and st_rdev of a file; 0 where they are unknown. os.fstat and not fstat: the symbol that fstat
 * links to on a new glibc is missing from an old one. */
static void
file_status(int fd, long *mode, long *device)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *status = os != NULL ? PyObject_CallMethod(os, "fstat", "i", fd) : NULL;
    PyObject *st_mode = status != NULL ? PyObject_GetAttrString(status, "st_mode") : NULL;
    PyObject *st_rdev = st_mode != NULL ? PyObject_GetAttrString(status, "st_rdev") : NULL;
    *mode = st_rdev != NULL ? PyLong_AsLong(st_mode) : 0;
    *device = st_rdev != NULL ? PyLong_AsLong(st_rdev) : 0;
    Py_XDECREF(st_rdev);
    Py_XDECREF(st_mode);
    Py_XDECREF(status);
    Py_XDECREF(os);
    PyErr_Clear();
}

/* The kind of file that refuses to be polled. Regular files, directories, block devices and the devices of
 * the kernel's memory driver never let a caller wait for an event. Nothing like that is known of other
 * devices, and of anonymous files such as that of fsopen(2). */
static void
explain_file(int op, int fd, char *cause, size_t size)
{
    enum { MEMORY_DRIVER = 1 };
    long mode, device;
    file_status(fd, &mode, &device);
    bool memory = S_ISCHR(mode) && major((dev_t)device) == MEMORY_DRIVER;
    const char *kind = S_ISREG(mode)   ? "a regular file"
                       : S_ISDIR(mode) ? "a directory"
                       : S_ISBLK(mode) ? "a block device"
                       : memory        ? "a device that never blocks, such as /dev/null,"
                                       : NULL;
    const char *accepted = op == EPOLL_CTL_ADD ? "; Epoll(always_ready=True) accepts it" : "";
    if (kind != NULL) {
        snprintf(cause, size, "%s is always ready and cannot be polled%s", kind, accepted);
    }
    else {
        snprintf(cause, size, "a %s of this kind cannot be polled", S_ISCHR(mode) ? "device" : "file");
    }
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

/* The cause of a failed epoll_ctl, as far as it is known; an empty text where the system's message is
 * enough. */
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
            explain_file(op, fd, cause, size);
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
    case EMFILE:
    case ENFILE:
        snprintf(cause, size, "a file that cannot be polled takes one more fd, of an eventfd in its place");
        break;
    case ENOSPC:
        explain_watch_limit(cause, size);
        break;
    default:
        break;
    }
}

PyObject *
ctl_error(int error, int op, const char *action, int epfd, int fd, int64_t mask)
{
    char cause[256];
    char names[FLAGS_TEXT];
    bool masked = mask != NO_MASK;
    explain(error, op, epfd, fd, masked ? (uint32_t)mask : 0, cause, sizeof(cause));
    flags_text((uint32_t)mask, names);
    PyObject *why = system_text(error);
    PyObject *text = why != NULL ? PyUnicode_FromFormat("%s fd %d%s%s%s: %U%s%s%s", action, fd,
                                                        masked ? " (" : "", masked ? names : "",
                                                        masked ? ")" : "", why, cause[0] != '\0' ? " (" : "",
                                                        cause, cause[0] != '\0' ? ")" : "")
                                 : NULL;
    Py_XDECREF(why);
    return raise_os_error(error, text);
}
