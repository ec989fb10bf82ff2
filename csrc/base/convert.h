/* Arguments from Python to C. Every range error lives here. Each returns 0, or -1 with an exception. */
#ifndef PYEPOLL_CONVERT_H
#define PYEPOLL_CONVERT_H

#include "base/compat.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum { ARGUMENTS = 5 };

typedef struct {
    const char *function;
    int required;
    int total;
    const char *names[ARGUMENTS];
} Signature;

/* The slow path of convert_arguments(): keywords, or too few or too many arguments. */
int convert_keywords(const Signature *signature, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     PyObject *values[ARGUMENTS]);

/* Put positional and keyword arguments in the order of the signature's names into `values`;
 * borrowed, and NULL for those not given. */
static inline int
convert_arguments(const Signature *signature, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  PyObject *values[ARGUMENTS])
{
    for (int i = 0; i < signature->total; i++) {
        values[i] = i < nargs ? args[i] : NULL;
    }
    return kwnames == NULL && nargs >= signature->required && nargs <= signature->total
               ? 0
               : convert_keywords(signature, args, nargs, kwnames, values);
}

/* An fd or an object with fileno(), whose Python code then runs. */
int convert_fd(PyObject *object, int *fd);

/* The same for the method `function`: the error names it, and explains a closed object. */
int convert_fd_for(const char *function, PyObject *object, int *fd);

int convert_int(PyObject *object, int *value);

/* Epoll data: 64 bits. */
int convert_epoll_data(PyObject *object, uint64_t *epoll_data);

/* An event mask of 32 bits. */
int convert_mask(PyObject *object, uint32_t *mask);

/* An event mask of known bits. */
int convert_eventmask(PyObject *object, uint32_t *mask);

/* Seconds to nanoseconds, rounded up; NO_TIMEOUT for None, -1 and more than 292 years; 0 for any other
 * negative value: a deadline that has passed. An object with __float__ is accepted from CPython 3.15 on, as
 * by the poll() of select.epoll. */
enum { NO_TIMEOUT = -1 };
int convert_timeout(PyObject *object, int64_t *timeout);

/* The timeout of a selector: 0 for -1 too, and every object with __float__ is accepted. */
int convert_selector_timeout(PyObject *object, int64_t *timeout);

/* INT_MAX for -1 and for larger values. */
int convert_maxevents(PyObject *object, int *maxevents);

/* An iterable of signal numbers; `*given` is false for None. */
int convert_sigmask(PyObject *object, sigset_t *set, bool *given);

#endif
