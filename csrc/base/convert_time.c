#include "base/convert_time.h"

#include <math.h>

static const int64_t second = 1000000000;

/* The seconds of a float are whole ones and a fraction, both exact: a product with 1e9 is not. */
static int64_t
nanoseconds_of(double seconds, bool up)
{
    double whole = floor(seconds);
    if (seconds < 0) {
        return -1;
    }
    if (whole >= (double)(INT64_MAX / second)) {
        return INT64_MAX;
    }
    double part = (seconds - whole) * (double)second;
    int64_t rounded = (int64_t)whole * second + (int64_t)(up ? ceil(part) : round(part));
    return rounded == 0 && seconds > 0 ? 1 : rounded;
}

static int
convert_whole(PyObject *object, int64_t *time)
{
    int overflow;
    PyObject *index = PyNumber_Index(object);
    if (index == NULL) {
        return -1;
    }
    long long seconds = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (seconds == -1 && PyErr_Occurred()) {
        return -1;
    }
    *time = overflow < 0 || (overflow == 0 && seconds < 0)  ? -1
            : overflow > 0 || seconds >= INT64_MAX / second ? INT64_MAX
                                                            : seconds * second;
    return 0;
}

int
convert_time(const char *name, PyObject *object, bool up, int64_t *time)
{
    if (PyIndex_Check(object)) {
        return convert_whole(object, time);
    }
    const PyNumberMethods *number = Py_TYPE(object)->tp_as_number;
    if (number == NULL || number->nb_float == NULL) {
        PyErr_Format(PyExc_TypeError, "%s must be a number of seconds, not %.200s", name,
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s must be a number of seconds, not nan", name);
        return -1;
    }
    *time = nanoseconds_of(seconds, up);
    return 0;
}
