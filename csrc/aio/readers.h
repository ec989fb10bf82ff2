/* What add_reader(), remove_reader(), add_writer() and remove_writer() of a loop do, on the table of its
 * selector. */
#ifndef PYEPOLL_READERS_H
#define PYEPOLL_READERS_H

#include "aio/fds.h"
#include "aio/handle.h"
#include "aio/loop.h"

/* loop._add_reader(fileobj, callback, *args), or _add_writer(), with a handle that has been made: `direction`
 * is READER or WRITER. An earlier handle is cancelled. 0, or -1 with an exception. */
int readers_add(LoopSelector *selector, int direction, PyObject *fileobj, PyObject *handle);

/* loop._remove_reader(fileobj), or _remove_writer(). 1 if there was a handle, which is cancelled; 0; or -1
 * with an exception. */
int readers_remove(LoopSelector *selector, int direction, PyObject *fileobj);

/* asyncio.events.Handle(callback, args, loop, context): in debug mode asyncio's, else ours. A new reference;
 * NULL with an exception. */
PyObject *readers_handle(EventLoop *self, const Call *call);

#endif
