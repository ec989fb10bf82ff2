/* OSErrors whose text names the operation, the fd, the flags and the cause. */
#ifndef PYEPOLL_ERRORS_H
#define PYEPOLL_ERRORS_H

#include "base/compat.h"

#include <stdint.h>

/* Raise the OSError subclass of `error`; the text is `format` and the system's message. NULL. */
PyObject *os_error(int error, const char *format, ...) Py_GCC_ATTRIBUTE((format(printf, 2, 3)));

/* The mask of an operation without one. */
#define NO_MASK ((int64_t)-1)

/* The same for a failed epoll_ctl, with the cause where it is known. `action` is the operation as the caller
 * named it; `mask` may be NO_MASK. NULL. */
PyObject *ctl_error(int error, int op, const char *action, int epfd, int fd, int64_t mask);

#endif
