/* OSErrors that say what was tried, on which fd, with which flags, and why it failed. */
#ifndef PYEPOLL_ERRORS_H
#define PYEPOLL_ERRORS_H

#include "compat.h"

#include <stdint.h>

/* Raise the OSError subclass of `error`; the text is `format` and the system's message. NULL. */
PyObject *os_error(int error, const char *format, ...) Py_GCC_ATTRIBUTE((format(printf, 2, 3)));

/* The same for a failed epoll_ctl, with the cause where it can be known. `action` is what the
 * caller was asked for; `mask` is NO_MASK where the operation has none. NULL. */
#define NO_MASK ((int64_t)-1)
PyObject *ctl_error(int error, int op, const char *action, int epfd, int fd, int64_t mask);

#endif
