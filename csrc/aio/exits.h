/* The exceptions that no callback, future or transport keeps for itself: asyncio lets them end the program. */
#ifndef PYEPOLL_EXITS_H
#define PYEPOLL_EXITS_H

#include "base/compat.h"

#include <stdbool.h>

/* `error` is an exception or its class. */
static inline bool
ends_program(PyObject *error)
{
    return PyErr_GivenExceptionMatches(error, PyExc_SystemExit) ||
           PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt);
}

#endif
