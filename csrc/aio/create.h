/* create_future and create_task. */
#ifndef PYEPOLL_CREATE_H
#define PYEPOLL_CREATE_H

#include "aio/loop.h"

/* Methods of a loop. */
PyObject *create_future(EventLoop *self, PyObject *ignored);
PyObject *create_task(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

#endif
