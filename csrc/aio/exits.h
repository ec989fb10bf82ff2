/* SystemExit and KeyboardInterrupt: asyncio does not report them, they end the program. */
#ifndef PYEPOLL_EXITS_H
#define PYEPOLL_EXITS_H

#include "base/compat.h"

#include <stdbool.h>

/* Whether an exception, or a class of exceptions, is one of them. */
static inline bool
ends_program(PyObject *error)
{
    return PyErr_GivenExceptionMatches(error, PyExc_SystemExit) ||
           PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt);
}

#endif
