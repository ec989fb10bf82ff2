/* Objects of the standard library that the aio layer looks up once. */
#ifndef PYEPOLL_AIO_IMPORTS_H
#define PYEPOLL_AIO_IMPORTS_H

#include "base/compat.h"

/* An attribute of a module, which is imported: a new reference, or NULL with an exception. */
PyObject *imported(const char *module_name, const char *name);

/* The offset of the slot that says whether a socket is closed, if `type` is CPython's own socket class; -1,
 * without an exception, for another, as eventlet's. */
Py_ssize_t offset_of_closed(PyObject *type);

/* The offset of any slot of a class that is written in Python; -1, without an exception, if it has none. */
Py_ssize_t offset_of_slot(PyObject *type, const char *name);

#endif
