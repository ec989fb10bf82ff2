/* add_reader(), remove_reader(), add_writer() and remove_writer() of a loop, on the table of its selector. */
#ifndef PYEPOLL_READERS_H
#define PYEPOLL_READERS_H

#include "aio/fds.h"

/* The public methods, and those with an underscore that asyncio's transports call: reader_methods.c. */
extern PyMethodDef readers_methods[];

/* A base of the loop with these methods, through which they find the module. */
extern PyType_Spec loop_readers_spec;

/* loop._add_reader(fileobj, callback, *args), or _add_writer(), with a handle that has been made: `direction`
 * is READER or WRITER. 0, or -1 with an exception. */
int readers_add(LoopSelector *selector, int direction, PyObject *fileobj, PyObject *handle);

/* loop._remove_reader(fileobj), or _remove_writer(). 1 if there was a handle, which is cancelled; 0; or -1 with
 * an exception. */
int readers_remove(LoopSelector *selector, int direction, PyObject *fileobj);

/* The methods with an underscore, for any selector of the loop; `direction` is READER or WRITER. The arguments of
 * the first, (fileobj, callback, *args) and perhaps the keyword context, have been counted. It returns the
 * handle, a new reference. */
PyObject *readers_private_add(const AioState *state, int direction, PyObject *loop, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames);
PyObject *readers_private_remove(const AioState *state, int direction, PyObject *loop, PyObject *fileobj);

#endif
