/*
 * Changes in place: the registration of an fd gets another mask, and perhaps other data, and keeps its
 * generation. On a build without a GIL, several threads can make them at the same time, without the ctl lock:
 * the kernel's own lock of an epoll is held for a part of an epoll_ctl only.
 *
 *   the ctl lock     whoever holds it has the instance alone: it waits for the changes in place that are
 *                    under way (change_lock()), and none begins (in_place_begin())
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
    Registration old; /* the fields that have changed; the caller releases it in the end */
} InPlace;

/* Give a registration other data; its earlier data go to `old`. With the state lock. */
void in_place_exchange_data(Registration *present, PyObject *data, Registration *old);

/* Make a change to our list, at the time `now`. With the state lock. */
void in_place_install(InPlace *change, uint64_t now);

/* Put back what it was. With the state lock. */
void in_place_put_back(InPlace *change);

/* modify, or rearm, whose mask is the present one, without the ctl lock. False: nothing has changed; the
 * change is to be made, or refused, with the ctl lock. */
bool in_place_modify(Instance *self, int fd, bool rearm, uint32_t mask, PyObject *data);

#endif
