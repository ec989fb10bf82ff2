#include "base/convert.h"

#include "base/flags.h"

#include <limits.h>
#include <math.h>
#include <string.h>

static const int64_t second = 1000000000;

/* The index among the signature's names of keyword `name`, or -1 with an exception. */
static int
find_keyword(const Signature *signature, PyObject *name)
{
    for (int i = 0; i < signature->total; i++) {
        if (PyUnicode_CompareWithASCIIString(name, signature->names[i]) == 0) {
            return i;
        }
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", signature->function, name);
    return -1;
}

int
convert_keywords(const Signature *signature, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 PyObject *values[ARGUMENTS])
{
    if (nargs > signature->total) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d arguments (%zd given)", signature->function,
                     signature->total, nargs);
        return -1;
    }
    Py_ssize_t keywords = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < keywords; i++) {
        int found = find_keyword(signature, PyTuple_GET_ITEM(kwnames, i));
        if (found < 0) {
            return -1;
        }
        if (values[found] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", signature->function,
                         signature->names[found]);
            return -1;
        }
        values[found] = args[nargs + i];
    }
    for (int i = 0; i < signature->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (pos %d)", signature->function,
                         signature->names[i], i + 1);
            return -1;
        }
    }
    return 0;
}

int
convert_fd(PyObject *object, int *fd)
{
    *fd = PyObject_AsFileDescriptor(object);
    return *fd < 0 ? -1 : 0;
}

/* Whether `object` has no fileno() at all. No exception is left. */
static bool
lacks_fileno(PyObject *object)
{
    PyObject *method = PyObject_GetAttrString(object, "fileno");
    bool lacks = method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError);
    Py_XDECREF(method);
    PyErr_Clear();
    return lacks;
}

/* Whether fileno() of `object` gives a negative int, as that of a closed socket does. Leaves no exception. */
static bool
is_closed(PyObject *object)
{
    PyObject *number = PyObject_CallMethod(object, "fileno", NULL);
    int overflow = 0;
    bool negative = number != NULL && PyLong_Check(number) &&
                    PyLong_AsLongAndOverflow(number, &overflow) < 0 && overflow == 0;
    Py_XDECREF(number);
    PyErr_Clear();
    return negative;
}

/* Replace CPython's exception by one of the same type that names the function and the object. An exception
 * raised by fileno() stays as it is. */
static void
explain_fd(const char *function, PyObject *object)
{
    PyObject *error = PyErr_GetRaisedException();
    bool bad_value = PyErr_GivenExceptionMatches(error, PyExc_ValueError);
    bool bad_type = PyErr_GivenExceptionMatches(error, PyExc_TypeError);
    if (bad_value && PyLong_Check(object)) {
        PyErr_Format(PyExc_ValueError, "%s(): an fd cannot be negative: %R", function, object);
    }
    else if (bad_type && lacks_fileno(object)) {
        PyErr_Format(PyExc_TypeError, "%s(): fd must be an int or an object with fileno(), not %.200s",
                     function, Py_TYPE(object)->tp_name);
    }
    else if (bad_value && is_closed(object)) {
        PyErr_Format(PyExc_ValueError, "%s(): the %.200s object is closed, its fileno() is negative%s",
                     function, Py_TYPE(object)->tp_name,
                     strcmp(function, "unregister") != 0
                         ? ""
                         : "; unregister it before you close it, or pass the int that its fileno() was");
    }
    else {
        PyErr_SetRaisedException(Py_NewRef(error));
    }
    Py_DECREF(error);
}

int
convert_fd_for(const char *function, PyObject *object, int *fd)
{
    if (convert_fd(object, fd) == 0) {
        return 0;
    }
    explain_fd(function, object);
    return -1;
}

/* The value of an int; `*overflow` is its sign where it does not fit. */
static inline int
convert_long(PyObject *object, long long *value, int *overflow)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        *value = PyUnstable_Long_CompactValue((PyLongObject *)object);
        *overflow = 0;
        return 0;
    }
#endif
    *value = PyLong_AsLongLongAndOverflow(object, overflow);
    return 0;
}

/* The value of an int or an object with __index__; `*overflow` is its sign where it does not fit. */
static inline int
convert_index(PyObject *object, const char *what, long long *value, int *overflow)
{
    if (PyLong_Check(object)) {
        return convert_long(object, value, overflow);
    }
    PyObject *index = PyNumber_Index(object);
    if (index == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) && !PyIndex_Check(object)) {
            PyErr_Format(PyExc_TypeError, "%s, not %.200s", what, Py_TYPE(object)->tp_name);
        }
        return -1;
    }
    *value = PyLong_AsLongLongAndOverflow(index, overflow);
    Py_DECREF(index);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

int
convert_int(PyObject *object, int *value)
{
    long long number;
    int overflow;
    if (convert_index(object, "an int is required", &number, &overflow) < 0) {
        return -1;
    }
    if (overflow != 0 || number < INT_MIN || number > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "int does not fit into the 32 bits of a C int");
        return -1;
    }
    *value = (int)number;
    return 0;
}

int
convert_epoll_data(PyObject *object, uint64_t *epoll_data)
{
    PyObject *index = PyNumber_Index(object);
    if (index == NULL) {
        return -1;
    }
    *epoll_data = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    return *epoll_data == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

int
convert_mask(PyObject *object, uint32_t *mask)
{
    long long number;
    int overflow;
    if (convert_index(object, "an event mask is an int", &number, &overflow) < 0) {
        return -1;
    }
    if (overflow != 0 || number < 0 || number > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "event mask %R is outside the 32 bits that it has: 0 to 0xffffffff",
                     object);
        return -1;
    }
    *mask = (uint32_t)number;
    return 0;
}

int
convert_eventmask(PyObject *object, uint32_t *mask)
{
    if (convert_mask(object, mask) < 0) {
        return -1;
    }
    if ((*mask & ~flags_known) != 0) {
        PyErr_Format(PyExc_ValueError, "event mask 0x%x has unknown bits 0x%x", *mask, *mask & ~flags_known);
        return -1;
    }
    return 0;
}

static int
convert_float_timeout(double seconds, int64_t minus_one, int64_t *timeout)
{
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a number of seconds, not nan");
        return -1;
    }
    double nanoseconds = ceil(seconds * (double)second);
    if (seconds == -1.0) {
        *timeout = minus_one;
    }
    else if (nanoseconds >= (double)INT64_MAX) {
        *timeout = NO_TIMEOUT;
    }
    else {
        *timeout = seconds > 0 ? (int64_t)nanoseconds : 0;
    }
    return 0;
}

/* Whether __float__ is all that makes an object a number: neither a float nor an int, nor usable as an
 * int. */
static bool
is_real_only(PyObject *object)
{
    const PyNumberMethods *number = Py_TYPE(object)->tp_as_number;
    return number != NULL && number->nb_float != NULL && !PyIndex_Check(object) && !PyFloat_Check(object);
}

static int
convert_real(PyObject *object, int64_t minus_one, int64_t *timeout)
{
    PyObject *seconds = PyNumber_Float(object);
    int status = seconds != NULL ? convert_float_timeout(PyFloat_AS_DOUBLE(seconds), minus_one, timeout) : -1;
    Py_XDECREF(seconds);
    return status;
}

/* `minus_one` is the timeout for -1. */
static int
convert_seconds(PyObject *object, int64_t minus_one, int64_t *timeout)
{
    if (object == Py_None) {
        *timeout = NO_TIMEOUT;
        return 0;
    }
    /* PyLong_Check() looks at a flag; PyFloat_Check() is a call where the type is not float itself. */
    if (!PyLong_Check(object) && PyFloat_Check(object)) {
        return convert_float_timeout(PyFloat_AS_DOUBLE(object), minus_one, timeout);
    }
    long long seconds;
    int overflow;
    if (convert_index(object, "timeout must be a number of seconds or None", &seconds, &overflow) < 0) {
        return -1;
    }
    if (overflow > 0 || seconds > INT64_MAX / second) {
        *timeout = NO_TIMEOUT;
    }
    else if (overflow == 0 && seconds == -1) {
        *timeout = minus_one;
    }
    else {
        *timeout = overflow == 0 && seconds > 0 ? seconds * second : 0;
    }
    return 0;
}

int
convert_timeout(PyObject *object, int64_t *timeout)
{
    /* As select.epoll.poll() of the same CPython, which refuses them before 3.15. */
    bool takes_real = PY_VERSION_HEX >= 0x030F0000;
    return takes_real && is_real_only(object) ? convert_real(object, NO_TIMEOUT, timeout)
                                              : convert_seconds(object, NO_TIMEOUT, timeout);
}

int
convert_selector_timeout(PyObject *object, int64_t *timeout)
{
    return !PyLong_Check(object) && is_real_only(object) ? convert_real(object, 0, timeout)
                                                         : convert_seconds(object, 0, timeout);
}

int
convert_maxevents(PyObject *object, int *maxevents)
{
    long long number;
    int overflow;
    if (convert_index(object, "maxevents must be an int", &number, &overflow) < 0) {
        return -1;
    }
    if (overflow < 0 || (overflow == 0 && number < 1 && number != -1)) {
        PyErr_Format(PyExc_ValueError, "maxevents must be greater than 0, or -1 for no limit, got %R",
                     object);
        return -1;
    }
    *maxevents = overflow > 0 || number > INT_MAX || number == -1 ? INT_MAX : (int)number;
    return 0;
}

static int
add_signal(PyObject *object, sigset_t *set)
{
    int number;
    if (convert_int(object, &number) < 0) {
        return -1;
    }
    /* The C library reserves two signal numbers and refuses them here. */
    if (number < 1 || sigaddset(set, number) < 0) {
        PyErr_Format(PyExc_ValueError, "signal number %d is not one of signal.valid_signals()", number);
        return -1;
    }
    return 0;
}

int
convert_sigmask(PyObject *object, sigset_t *set, bool *given)
{
    *given = object != Py_None;
    if (!*given) {
        return 0;
    }
    sigemptyset(set);
    PyObject *iterator = PyObject_GetIter(object);
    if (iterator == NULL) {
        return -1;
    }
    PyObject *item;
    int status = 0;
    while (status == 0 && (item = PyIter_Next(iterator)) != NULL) {
        status = add_signal(item, set);
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    return status < 0 || PyErr_Occurred() ? -1 : 0;
}
