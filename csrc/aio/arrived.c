#include "aio/arrived.h"

#include "aio/readers.h"

int
arrived_add(EventLoop *self, const Call *call)
{
    PyObject *handle = readers_handle(self, call); /* first: its class may be a program's, and run a turn */
    int status = -1;
    Py_BEGIN_CRITICAL_SECTION(self); /* a program may connect in another thread than the loop's */
    if (handle != NULL && (self->arrived != NULL || (self->arrived = PyList_New(0)) != NULL)) {
        status = PyList_Append(self->arrived, handle);
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(handle);
    return status;
}

/* Append to `_ready`, which may be any object. 0, or -1 with an exception. */
static int
append_by_method(EventLoop *self, PyObject *handle)
{
    PyObject *ready = PyObject_GetAttrString((PyObject *)self, "_ready");
    PyObject *result = ready != NULL ? PyObject_CallMethod(ready, "append", "O", handle) : NULL;
    Py_XDECREF(ready);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* Leave those from an index on to the next turn, with the exception that is set. It needs memory only if more
 * have arrived meanwhile. */
static void
put_back(EventLoop *self, PyObject *list, Py_ssize_t index)
{
    PyObject *error = PyErr_GetRaisedException();
    int status = 0;
    for (Py_ssize_t i = 0; i < index; i++) {
        PyList_SetItem(list, i, Py_NewRef(Py_None));
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->arrived == NULL) {
        self->arrived = Py_NewRef(list);
    }
    else {
        status = PyList_SetSlice(self->arrived, 0, 0, list);
    }
    Py_END_CRITICAL_SECTION();
    if (status < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(error);
}

int
arrived_queue(EventLoop *self, ReadyQueue *queue)
{
    PyObject *list;
    int status = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    list = self->arrived;
    self->arrived = NULL;
    Py_END_CRITICAL_SECTION();
    for (Py_ssize_t i = 0; status == 0 && list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *handle = PyList_GET_ITEM(list, i);
        if (handle == Py_None) {
            continue; /* queued before: put_back() */
        }
        status = queue != NULL ? ready_put(queue, handle) : append_by_method(self, handle);
        if (status < 0) {
            put_back(self, list, i);
        }
    }
    Py_XDECREF(list);
    return status;
}
