/* The docstrings of the public methods that EventLoop has in C. */
#ifndef PYEPOLL_LOOP_DOCS_H
#define PYEPOLL_LOOP_DOCS_H

#include "base/compat.h"

PyDoc_STRVAR(call_soon_doc,
"call_soon($self, callback, *args, context=None)\n--\n\n"
"Call a function in the next turn of the loop. Returns its asyncio.Handle.\n\n"
"context: the contextvars.Context to call it in; a copy of the present one if it is None.\n\n"
"Raises RuntimeError if the loop is closed. See asyncio.loop.call_soon().");

PyDoc_STRVAR(call_soon_threadsafe_doc,
"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
"Like call_soon(), from any thread: wakes the loop if it is waiting.");

PyDoc_STRVAR(call_later_doc,
"call_later($self, delay, callback, *args, context=None)\n--\n\n"
"Call a function in delay seconds, an int or a float. Returns its asyncio.TimerHandle.\n\n"
"Raises TypeError if delay is None; RuntimeError if the loop is closed. See asyncio.loop.call_later().");

PyDoc_STRVAR(call_at_doc,
"call_at($self, when, callback, *args, context=None)\n--\n\n"
"Call a function at a time of the clock that loop.time() shows. Returns its asyncio.TimerHandle.\n\n"
"Raises TypeError if when is None; RuntimeError if the loop is closed. See asyncio.loop.call_at().");

PyDoc_STRVAR(create_future_doc,
"create_future($self, /)\n--\n\n"
"Return a new asyncio.Future of this loop.");

PyDoc_STRVAR(create_task_doc,
"create_task($self, coro, **kwargs)\n--\n\n"
"Return a new task that runs a coroutine. See asyncio.loop.create_task().");

PyDoc_STRVAR(get_debug_doc,
"get_debug($self, /)\n--\n\n"
"Return whether the loop is in debug mode.");

PyDoc_STRVAR(time_doc,
"time($self, /)\n--\n\n"
"Return the time of the clock for call_at(), in seconds.");

#endif
