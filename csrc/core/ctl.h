/* Changes to the interest list: the kernel's and ours in one step, or neither.
 *
 * Each returns 0; IS_CLOSED; or -1 with an exception, after which the two lists agree again. */
#ifndef PYEPOLL_CTL_H
#define PYEPOLL_CTL_H

#include "core/instance.h"

int ctl_register(Instance *self, int fd, uint32_t mask, PyObject *data);

/* `data` may be NULL: it stays as it is. */
int ctl_modify(Instance *self, int fd, uint32_t mask, PyObject *data);

/* Change the data alone, without a system call; nothing where there is no registration. */
int ctl_replace_data(Instance *self, int fd, PyObject *data);

/* Apply the present mask of the registration once more. */
int ctl_rearm(Instance *self, int fd);

/* The registration is removed even if the kernel refuses. */
int ctl_unregister(Instance *self, int fd);

/* The same, but a refusal by the kernel is no error: the fd may be closed, or refer to another file. */
int ctl_drop(Instance *self, int fd);

/* As ctl_unregister(), unless the fd has been registered again meanwhile, with data other than these. */
int ctl_unregister_only(Instance *self, int fd, const PyObject *data);

#endif
