/* The seconds of a timer. */
#ifndef PYEPOLL_CONVERT_TIME_H
#define PYEPOLL_CONVERT_TIME_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* Seconds to nanoseconds; INT64_MAX for more than 292 years, -1 for any negative value. A float is rounded to
 * the next nanosecond (`up`) or the nearest, which is what 1.1 means, but never to 0. Objects with __float__
 * are accepted; None is not. `name` is the argument's. */
int convert_time(const char *name, PyObject *object, bool up, int64_t *time);

#endif
