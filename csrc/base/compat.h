/* Functions that older CPythons lack, each under the version with which it can be removed. */
#ifndef PYEPOLL_COMPAT_H
#define PYEPOLL_COMPAT_H

#define PY_SSIZE_T_CLEAN
/* A header of CPython 3.15.2 tests a macro that is not defined, which is an error where -Wundef is one. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef"
#include <Python.h>
#pragma GCC diagnostic pop

/* Whether other threads run Python code while this one does. */
#ifdef Py_GIL_DISABLED
enum { FREE_THREADED = 1 };
#else
enum { FREE_THREADED = 0 };
#endif

/* With CPython 3.11. */
#if PY_VERSION_HEX < 0x030C0000
/* The exception that is set, which is set no more: a new reference, or NULL. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type != NULL) {
        PyErr_NormalizeException(&type, &value, &traceback);
    }
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Set it again; takes over the reference. */
static inline void
PyErr_SetRaisedException(PyObject *error)
{
    PyObject *type = error != NULL ? Py_NewRef(Py_TYPE(error)) : NULL;
    PyErr_Restore(type, error, error != NULL ? PyException_GetTraceback(error) : NULL);
}
#endif

/* With CPython 3.12: nothing takes its GIL away from a build that has one. */
#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }

/* 1 and a new reference, 0 and NULL where the key is missing, -1 with an exception. */
static inline int
PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **value)
{
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *value != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* 1 and, unless `value` is NULL, a new reference; 0 and NULL where the key is missing, -1 with an exception.
 */
static inline int
PyDict_Pop(PyObject *dict, PyObject *key, PyObject **value)
{
    PyObject *found;
    int status = PyDict_GetItemRef(dict, key, &found);
    if (status > 0 && PyDict_DelItem(dict, key) < 0) {
        /* Another key's __eq__ may have taken it out between the two. */
        status = PyErr_ExceptionMatches(PyExc_KeyError) ? 0 : -1;
        if (status == 0) {
            PyErr_Clear();
        }
        Py_CLEAR(found);
    }
    if (value != NULL) {
        *value = found;
    }
    else {
        Py_XDECREF(found);
    }
    return status;
}

/* 1 and a new reference, 0 and NULL where the object is gone, -1 with an exception. */
static inline int
PyWeakref_GetRef(PyObject *reference, PyObject **object)
{
    *object = PyWeakref_GetObject(reference);
    if (*object == NULL) {
        return -1;
    }
    if (*object == Py_None) {
        *object = NULL;
        return 0;
    }
    Py_INCREF(*object);
    return 1;
}
#endif

#endif
