/* Does the kernel keep EPOLLWAKEUP? It drops the bit without an error where the caller lacks
 * CAP_BLOCK_SUSPEND, and where it is built without power management. Plain C, for use without the GIL. */
#ifndef PYEPOLL_WAKEUP_H
#define PYEPOLL_WAKEUP_H

#include <stdbool.h>
#include <stdint.h>

/* Asks the kernel each time, with an epoll of one entry: a process may drop its privileges. Also true where
 * the answer is unknown. */
bool wakeup_is_kept(void);

/* The part of a mask that the kernel keeps. With the GIL, which is released where the kernel is asked. */
uint32_t wakeup_kept_mask(uint32_t mask);

#endif
