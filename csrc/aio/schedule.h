/* call_soon, call_later and call_at. */
#ifndef PYEPOLL_SCHEDULE_H
#define PYEPOLL_SCHEDULE_H

#include "aio/handle.h"
#include "aio/loop.h"

/* Vectorcall methods of a loop. */
PyObject *schedule_soon(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *schedule_later(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *schedule_at(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Call asyncio's own version of a method. */
PyObject *schedule_stock(EventLoop *self, int method, PyObject *const *args, Py_ssize_t count,
                         PyObject *names);

/* Whether C may do it: the loop is open, not in debug mode, and nothing in `used`, of the HOOKs in
 * override.h, is replaced. */
bool schedule_is_plain(EventLoop *self, uint64_t used);

/* loop.call_soon(), called by C. 1; 0 where the method has to be called: the loop is not ours, a hook is
 * replaced, it is in debug mode or closed; -1 with an exception. */
int schedule_directly(const AioState *state, const Call *call);

/* loop.get_debug(), called by C: 1 or 0; -1 where the method has to be called. */
int schedule_is_debug(const AioState *state, PyObject *loop);

/* Read (callback, *args, *, context=None) after `skip` arguments. False, without an exception, for anything
 * but that. */
bool schedule_parse(const EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int skip,
                    Call *call);

#endif
