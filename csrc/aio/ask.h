/* loop.get_debug() and loop.time(): for each future, and each timeout. */
#ifndef PYEPOLL_ASK_H
#define PYEPOLL_ASK_H

#include "aio/loop.h"

PyObject *ask_debug(EventLoop *self, PyObject *ignored);
/* Whether getaddrinfo() may answer without run_in_executor(): the loop is open and not in debug mode, and
 * run_in_executor() is asyncio's own. */
PyObject *ask_may_answer(EventLoop *self, PyObject *ignored);
PyObject *ask_time(EventLoop *self, PyObject *ignored);

#endif
