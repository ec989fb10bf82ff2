#include "aio/run.h"

#include "aio/exits.h"
#include "aio/handle.h"
#include "aio/override.h"

/* The call of a handle. All are new references, but for `inlined` the arguments are. */
typedef struct {
    PyObject *callback;
    PyObject *context;
    PyObject *tuple;   /* of the arguments, or NULL: they are in `inlined` */
    PyObject *room[1]; /* for PY_VECTORCALL_ARGUMENTS_OFFSET */
    PyObject *inlined[INLINE_ARGS];
    int count;
} Callee;

/* Read the handle. False if it is cancelled or is not as asyncio makes it. */
static bool
take_callee(StockHandle *handle, const InlineArgs *inline_args, Callee *callee)
{
    bool plain = false;
    callee->count = 0;
    Py_BEGIN_CRITICAL_SECTION(handle);
    plain = handle->cancelled == Py_False && handle->callback != NULL && handle->context != NULL &&
            PyContext_CheckExact(handle->context) &&
            (handle->args != NULL ? PyTuple_CheckExact(handle->args) : inline_args != NULL);
    if (plain) {
        callee->callback = Py_NewRef(handle->callback);
        callee->context = Py_NewRef(handle->context);
        callee->tuple = Py_XNewRef(handle->args);
        for (int i = 0; callee->tuple == NULL && i < inline_args->count; i++) {
            callee->inlined[i] = Py_NewRef(inline_args->items[i]);
            callee->count++;
        }
    }
    Py_END_CRITICAL_SECTION();
    return plain;
}

static void
drop_callee(Callee *callee)
{
    Py_DECREF(callee->callback);
    Py_DECREF(callee->context);
    Py_XDECREF(callee->tuple);
    while (callee->count > 0) {
        Py_DECREF(callee->inlined[--callee->count]);
    }
}

/* Leave the context, and keep the result or the exception that is set. */
static PyObject *
leave_context(PyObject *context, PyObject *result)
{
    PyObject *error = result == NULL ? PyErr_GetRaisedException() : NULL;
    int status = PyContext_Exit(context);
    if (error != NULL) {
        PyErr_SetRaisedException(error);
    }
    else if (status < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
call(Callee *callee)
{
    if (PyContext_Enter(callee->context) < 0) {
        return NULL;
    }
    PyObject *result = callee->tuple != NULL
                           ? PyObject_Call(callee->callback, callee->tuple, NULL)
                           : PyObject_Vectorcall(callee->callback, callee->inlined,
                                                 (size_t)callee->count | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                                 NULL);
    return leave_context(callee->context, result);
}

/* Report the exception that is set in asyncio's words. 1; -1 for one that has to end the loop. */
static int
report(const LoopState *state, PyObject *handle)
{
    if (ends_program(PyErr_Occurred())) {
        return -1;
    }
    if (state->report_error == NULL) {
        PyErr_WriteUnraisable(handle);
        return 1;
    }
    PyObject *error = PyErr_GetRaisedException();
    PyObject *args[] = {handle, error};
    PyObject *result = PyObject_Vectorcall(state->report_error, args, 2, NULL);
    Py_DECREF(error);
    Py_XDECREF(result);
    return result != NULL ? 1 : -1;
}

static bool
is_cancelled(const LoopState *state, PyObject *handle)
{
    return is_known_handle(state, handle) && ((StockHandle *)handle)->cancelled == Py_True;
}

/* Run a handle of another type, or one that is not as asyncio makes it, as asyncio's loop does. */
static int
run_other(const LoopState *state, PyObject *handle)
{
    PyObject *cancelled = PyObject_GetAttr(handle, state->names[LOOP_CANCELLED]);
    int truth = cancelled != NULL ? PyObject_IsTrue(cancelled) : -1;
    Py_XDECREF(cancelled);
    if (truth != 0) {
        return truth < 0 ? -1 : 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(handle, state->names[LOOP_RUN]);
    Py_XDECREF(result);
    return result != NULL ? 1 : -1;
}

int
run_handle(AioState *state, PyObject *handle)
{
    LoopState *loop_state = &state->loop;
    Callee callee;
    if (!is_known_handle(loop_state, handle) || !override_run_is_stock(loop_state) ||
        !take_callee((StockHandle *)handle, handle_inline(loop_state, handle), &callee)) {
        return is_cancelled(loop_state, handle) ? 0 : run_other(loop_state, handle);
    }
    PyObject *result = call(&callee);
    int status = result != NULL ? 1 : report(loop_state, handle);
    Py_XDECREF(result);
    drop_callee(&callee);
    return status;
}
