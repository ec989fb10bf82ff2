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

/* The loop's selector, if C may work on its table and the loop is open: a new reference, or NULL. */
LoopSelector *readers_selector(EventLoop *self);

/* loop._add_reader(fileobj, callback, *args), or _add_writer(), called by C with the loop, callback and
 * arguments of `call`. 1; 0 where the method has to be called: the loop or its selector is not ours, a hook
 * is replaced, the loop is closed; -1 with an exception. */
int readers_add_directly(const AioState *state, int direction, PyObject *fileobj, const Call *call);

/* loop._remove_reader(fileobj), or _remove_writer(): as readers_add_directly(). */
int readers_remove_directly(const AioState *state, int direction, PyObject *fileobj, PyObject *loop);

/* loop._ensure_fd_no_transport(fileobj): 0, or -1 with an exception. In reader_methods.c. */
int readers_ensure_no_transport(EventLoop *self, PyObject *fileobj);

/* add_reader(*args) or add_writer(*args), but returns the handle: a new reference, or NULL with an exception.
 * In reader_methods.c. */
PyObject *readers_add_checked(EventLoop *self, int direction, PyObject *const *args, Py_ssize_t nargs);

/* asyncio.events.Handle(callback, args, loop, context): in debug mode asyncio's, else ours. A new reference;
 * NULL with an exception. */
PyObject *readers_handle(EventLoop *self, const Call *call);

#endif
