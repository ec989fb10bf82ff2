/* The results of calls whose value is not needed. */
#ifndef PYEPOLL_RESULT_H
#define PYEPOLL_RESULT_H

#include <Python.h>

/* 0 and the reference dropped; -1 if `result` is NULL, with its exception. */
static inline int
status_of(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

static inline PyObject *
none_or_error(int status)
{
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

#endif
