/*
 * Changes in place: the registration of an fd gets another mask, and perhaps other data, and keeps its
 * generation. On a build without a GIL, several threads can make them at the same time, without the ctl lock:
 * the kernel's own lock of an epoll is held for a part of an epoll_ctl only.
 *
 *   the ctl lock     excludes changes in place: change_lock() waits for those that are under way, and while
 *                    the lock is taken none begins (begin_in_place())
 *   slot->changing   excludes two changes of one fd: the kernel could make them in another order
 */
#ifndef PYEPOLL_IN_PLACE_H
#define PYEPOLL_IN_PLACE_H

#include "core/instance.h"

/* A change in place, with what is put back if the kernel refuses it. */
typedef struct {
    Registration *present;
    uint32_t mask;    /* the new one */
    PyObject *data;   /* the new data; NULL: they stay as they are */
    Registration old; /* the fields that have changed; at the end, the caller releases it */
} InPlace;

/* Give a registration other data; its earlier data go to `old`. With the state lock. */
void in_place_exchange_data(Registration *present, PyObject *data, Registration *old);

/* Make a change to our list, at the time `now`. With the state lock. */
void in_place_install(InPlace *change, uint64_t now);

/* Undo in_place_install(). With the state lock. */
void in_place_put_back(InPlace *change);

/* modify without the ctl lock; or rearm, which keeps the present mask. False if nothing has changed: the
 * caller makes the change with the ctl lock, or learns there why it is impossible. */
bool in_place_modify(Instance *self, int fd, bool rearm, uint32_t mask, PyObject *data);

#endif
