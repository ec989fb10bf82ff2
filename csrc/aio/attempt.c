#include "aio/attempt.h"

#include "aio/exits.h"
#include "aio/sockop.h"
#include "aio/state.h"

typedef PyObject *(*Operation)(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* Whether a future has its result, or is cancelled. -1 with an exception. */
static int
is_done(const AioState *state, PyObject *future)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, state->stream.names[NAME_DONE]);
    int truth = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return truth;
}

/* Give the future the exception that is set, unless that ends the program. */
static PyObject *
fail(const AioState *state, PyObject *future)
{
    if (ends_program(PyErr_Occurred())) {
        return NULL;
    }
    PyObject *error = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(future, state->stream.names[NAME_SET_EXCEPTION], error);
    Py_DECREF(error);
    return result;
}

static PyObject *
attempt(PyObject *module, PyObject *const *args, Py_ssize_t nargs, Operation operation)
{
    const AioState *state = aio_state(module);
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "a future, a socket and an argument are needed");
        return NULL;
    }
    int done = is_done(state, args[0]);
    if (done != 0) {
        return done > 0 ? Py_NewRef(Py_None) : NULL;
    }
    PyObject *value = operation(module, args + 1, 2);
    if (value == NULL) {
        return fail(state, args[0]);
    }
    PyObject *result = value != Py_None
                           ? PyObject_CallMethodOneArg(args[0], state->stream.names[NAME_SET_RESULT], value)
                           : Py_NewRef(Py_None);
    Py_DECREF(value);
    return result;
}

PyObject *
attempt_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return attempt(module, args, nargs, sockop_receive);
}

PyObject *
attempt_receive_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return attempt(module, args, nargs, sockop_receive_into);
}
