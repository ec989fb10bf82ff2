/* How an epoll busy-polls network cards: struct epoll_params, Linux 6.9. */
#ifndef PYEPOLL_PARAMS_H
#define PYEPOLL_PARAMS_H

#include "base/flags.h"

/* EPIOCGPARAMS and EPIOCSPARAMS: 0 or an errno. No Python code runs. */
int params_read(int epfd, struct epoll_params *params);
int params_write(int epfd, const struct epoll_params *params);

/* The objects (busy_poll_usecs, busy_poll_budget, prefer_busy_poll) to a struct: 0, or -1 with an exception.
 */
int params_convert(PyObject *const given[3], struct epoll_params *params);

/* The struct as a tuple: a new reference. */
PyObject *params_build(const struct epoll_params *params);

/* Raise the OSError of a failed ioctl, with the cause where it is known; `params` are the values that were to
 * be set. NULL. */
PyObject *params_error(int error, const char *name, int epfd, const struct epoll_params *params);

#endif
