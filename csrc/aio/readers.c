#include "aio/readers.h"

#include "aio/fdchange.h"
#include "aio/handle_methods.h"
#include "aio/override.h"

/* Cancel the handles that are not watched any more, and keep the exception that is set. 0, or -1 with another
 * exception. */
static int
cancel_dropped(const AioState *state, FdUpdate *update)
{
    int status = 0;
    for (int i = 0; i < DIRECTIONS; i++) {
        PyObject *handle = update->dropped[i];
        if (handle != NULL) {
            PyObject *error = PyErr_GetRaisedException();
            PyObject *result = Py_IS_TYPE(handle, state->loop.handle_type)
                                   ? handle_cancel((Handle *)handle, NULL)
                                   : PyObject_CallMethodNoArgs(handle, state->fds.names[FDS_CANCEL]);
            status = result == NULL ? -1 : status;
            Py_XDECREF(result);
            Py_CLEAR(update->dropped[i]);
            if (error != NULL) {
                PyErr_SetRaisedException(error);
            }
        }
    }
    return status;
}

int
readers_add(LoopSelector *selector, int direction, PyObject *fileobj, PyObject *handle)
{
    FdUpdate update = {.fileobj = fileobj, .events = (uint8_t)(1 << direction), .handle = handle};
    update.fd = fds_fd_of(selector, fileobj, &update.closed);
    if (update.fd < 0) {
        return -1;
    }
    int status = fdchange_watch(selector, &update);
    return cancel_dropped(aio_of(selector->module), &update) < 0 ? -1 : status;
}

int
readers_remove(LoopSelector *selector, int direction, PyObject *fileobj)
{
    FdUpdate update = {.fileobj = fileobj, .events = (uint8_t)(1 << direction)};
    update.fd = fds_fd_of(selector, fileobj, &update.closed);
    if (update.fd < 0) {
        return -1;
    }
    int status = fdchange_unwatch(selector, &update);
    bool had = update.dropped[direction] != NULL;
    return cancel_dropped(aio_of(selector->module), &update) < 0 || status < 0 ? -1 : had;
}

PyObject *
readers_handle(EventLoop *self, const Call *call)
{
    AioState *state = self->state;
    PyObject *type = Py_XNewRef(loop_global(&state->loop.globals[GLOBAL_HANDLE]));
    if (type == NULL) {
        PyErr_SetString(PyExc_NameError, "name 'Handle' is not defined");
        return NULL;
    }
    PyObject *handle = NULL;
    if (type == (PyObject *)state->loop.stock_handle && state->loop.handle_type != NULL &&
        loop_member(&self->debug) == Py_False) {
        handle = handle_new(state, call);
    }
    else {
        PyObject *args = PyTuple_New(call->count);
        for (Py_ssize_t i = 0; args != NULL && i < call->count; i++) {
            PyTuple_SET_ITEM(args, i, Py_NewRef(call->args[i]));
        }
        PyObject *given[] = {call->callback, args, call->loop,
                             call->context != NULL ? call->context : Py_None};
        handle = args != NULL ? PyObject_Vectorcall(type, given, 4, NULL) : NULL;
        Py_XDECREF(args);
    }
    Py_DECREF(type);
    return handle;
}

LoopSelector *
readers_selector(EventLoop *self)
{
    PyObject *selector = loop_member(&self->selector);
    return loop_member(&self->closed) == Py_False && is_loop_selector(self->state, selector)
               ? (LoopSelector *)Py_NewRef(selector)
               : NULL;
}

/* The selector of any loop, if C may do what the method does: a new reference, or NULL. */
static LoopSelector *
selector_of(const AioState *state, PyObject *loop, uint64_t hooks)
{
    EventLoop *self = (EventLoop *)loop;
    return loop_is_ours(state, loop) && (loop_overridden(self) & hooks) == 0 ? readers_selector(self) : NULL;
}

int
readers_add_directly(const AioState *state, int direction, PyObject *fileobj, const Call *call)
{
    LoopSelector *selector = selector_of(state, call->loop,
                                         HOOK(ADD_READER + direction) | HOOK(CHECK_CLOSED));
    if (selector == NULL) {
        return 0;
    }
    PyObject *handle = readers_handle((EventLoop *)call->loop, call);
    int status = handle != NULL ? readers_add(selector, direction, fileobj, handle) : -1;
    Py_XDECREF(handle);
    Py_DECREF(selector);
    return status < 0 ? -1 : 1;
}

int
readers_remove_directly(const AioState *state, int direction, PyObject *fileobj, PyObject *loop)
{
    LoopSelector *selector = selector_of(state, loop, HOOK(REMOVE_READER + direction));
    if (selector == NULL) {
        return 0;
    }
    int status = readers_remove(selector, direction, fileobj);
    Py_DECREF(selector);
    return status < 0 ? -1 : 1;
}
