#include "aio/arrived.h"

#include "aio/readers.h"

int
arrived_add(EventLoop *self, const Call *call)
{
    if (self->arrived == NULL && (self->arrived = PyList_New(0)) == NULL) {
        return -1;
    }
    PyObject *handle = readers_handle(self, call);
    int status = handle != NULL && self->arrived != NULL ? PyList_Append(self->arrived, handle) : -1;
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

int
arrived_queue(EventLoop *self, ReadyQueue *queue)
{
    PyObject *list = self->arrived;
    self->arrived = NULL;
    int status = 0;
    for (Py_ssize_t i = 0; status == 0 && list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *handle = PyList_GET_ITEM(list, i);
        status = queue != NULL ? ready_put(queue, handle) : append_by_method(self, handle);
    }
    Py_XDECREF(list);
    return status;
}
