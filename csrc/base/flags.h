/* The constants of linux/eventpoll.h, and the names of an event mask's bits. */
#ifndef PYEPOLL_FLAGS_H
#define PYEPOLL_FLAGS_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

/* Constants that the sys/epoll.h of a supported C library may lack. */
#ifndef EPOLLNVAL
#define EPOLLNVAL 0x20u
#endif
#ifndef EPOLL_URING_WAKE
#define EPOLL_URING_WAKE (1u << 27)
#endif
#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif

#ifndef EPOLL_IOC_TYPE
#define EPOLL_IOC_TYPE 0x8A
#endif

/* Linux 6.9; glibc 2.40 has them under the same names. */
#ifndef EPIOCSPARAMS
struct epoll_params {
    uint32_t busy_poll_usecs;
    uint16_t busy_poll_budget;
    uint8_t prefer_busy_poll;
    uint8_t __pad;
};
#define EPIOCSPARAMS _IOW(EPOLL_IOC_TYPE, 0x01, struct epoll_params)
#define EPIOCGPARAMS _IOR(EPOLL_IOC_TYPE, 0x02, struct epoll_params)
#endif

/* Every bit that a registration may ask for. Each has a member of Event. */
extern const uint32_t flags_known;

/* Long enough for the names of all bits. */
enum { FLAGS_TEXT = 160 };

/* Write the names of the bits of `mask`, joined by `|`; bits without a name as one hex number. */
void flags_text(uint32_t mask, char text[FLAGS_TEXT]);

/* Add every constant to `module`. 0, or -1 with an exception. */
int flags_add_constants(PyObject *module);

#endif
