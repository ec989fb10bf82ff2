/*
 * Stand-ins for files that cannot be polled.
 *
 * The kernel refuses to watch a regular file, a directory or /dev/null: EPOLL_CTL_ADD fails with EPERM. For
 * poll(2) such a file is always ready. With Epoll(always_ready=True), an eventfd that is always ready is in
 * the kernel's list in its place, with the mask and the epoll data of the registration. So the kernel itself
 * does what the mask says (level, edge, one-shot, exclusive), counts up to maxevents in turn with other
 * files, and makes the epoll readable for whoever watches it.
 *
 * This file has the eventfds and their table, without locks; core/always_ready.h is about an Instance.
 */
#ifndef PYEPOLL_STAND_IN_H
#define PYEPOLL_STAND_IN_H

#include "base/syscalls.h"

typedef struct {
    int fd;      /* the registered one */
    int eventfd; /* in the kernel's list in its place; -1: others have closed it */
    FileId file; /* to which `fd` referred */
} StandIn;

/* An event and a change of any file look into it, so neither may take a walk through it. */
typedef struct {
    StandIn *items; /* from PyMem, in the order of their fds */
    int count;
    int capacity;
    uint8_t *eventfds; /* from PyMem: a bit for each fd, 0 if none of the eventfds has it */
    int bytes;         /* of `eventfds` */
} StandIns;

/* Room for one more, with this eventfd. 0, or -1 (no exception set) when there is no memory. */
int stand_in_reserve(StandIns *table, int eventfd);

/* There must be room. After one for the same fd, if there is one. */
void stand_in_insert(StandIns *table, StandIn item);

/* The index of the one for `fd`, the newest if a change is under way; -1 if there is none. */
int stand_in_index(const StandIns *table, int fd);

/* Take one out of the table. */
StandIn stand_in_take(StandIns *table, int index);

/* The index of the one whose eventfd has this fd, or -1. */
int stand_in_index_of_eventfd(const StandIns *table, int fd);

/* The fd of its eventfd refers to another file now: others have closed the eventfd. */
void stand_in_forget_eventfd(StandIns *table, int index);

/* A new eventfd that stands in for `fd`: its count says so to whoever reads its fdinfo. -1 and errno. */
int stand_in_eventfd(int fd);

/* Remove a stand-in from the list of the kernel instance `epfd`, unless that is -1, and close its eventfd, if
 * the fd still refers to it. Needs no GIL. */
void stand_in_close(const StandIn *item, int epfd);

/* Close all, and free the table. */
void stand_in_close_all(StandIns *table, int epfd);

/* Whether the fd still refers to the registered file, as far as that can be known. Needs no GIL. */
bool stand_in_is_current(const StandIn *item);

/* Whether the fd of the eventfd still refers to it, and not to the file of a program that closes all its fds;
 * `unknown` where fdinfo cannot be read. Needs no GIL. */
bool stand_in_has_eventfd(const StandIn *item, bool unknown);

/* The mask to ask of an eventfd, which reports IN and OUT, but not RDNORM and WRNORM as poll(2) does. */
uint32_t stand_in_mask(uint32_t mask);

/* The events to report for those of an eventfd, where `mask` was asked. */
uint32_t stand_in_events(uint32_t mask, uint32_t events);

#endif
