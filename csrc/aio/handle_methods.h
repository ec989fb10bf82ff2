/* The methods and attributes of our handles that are not asyncio's: cancel() and _args. */
#ifndef PYEPOLL_HANDLE_METHODS_H
#define PYEPOLL_HANDLE_METHODS_H

#include "aio/handle.h"

/* handle.cancel() */
PyObject *handle_cancel(Handle *self, PyObject *ignored);

extern PyMethodDef handle_methods[];
extern PyMethodDef timer_methods[];
extern PyGetSetDef handle_getset[];
extern PyGetSetDef timer_getset[];

#endif
