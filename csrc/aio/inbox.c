#include "aio/inbox.h"

#include "aio/override.h"
#include "aio/schedule.h"

/* Wake the loop, unless it is awake. The first thread of several does it. 0, or -1 with an exception. */
static int
wake(EventLoop *self)
{
    int asleep = ASLEEP;
    if (atomic_load(&self->sleep) == AWAKE ||
        (!atomic_compare_exchange_strong(&self->sleep, &asleep, AWAKE) && asleep == AWAKE)) {
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self,
                                                 self->state->loop.method_names[WRITE_TO_SELF]);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* CPython 3.14 has a handle of its own for this, whose cancel() waits for a callback that is running. */
enum { HAS_THREADSAFE_HANDLE = PY_VERSION_HEX >= 0x030E0000 };

PyObject *
inbox_call_soon_threadsafe(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const uint32_t used = HOOK(PRIVATE_CALL_SOON) | HOOK(CHECK_CLOSED) | HOOK(GET_DEBUG) |
                          HOOK(WRITE_TO_SELF) | STOCK_HOOK(CALL_SOON_THREADSAFE);
    PyObject *ready = loop_member(&self->ready);
    Call call;
    if (HAS_THREADSAFE_HANDLE || ready == NULL || !Py_IS_TYPE(ready, self->state->loop.queue_type) ||
        !schedule_is_plain(self, used) || !schedule_parse(self, args, count, names, 0, &call)) {
        return schedule_stock(self, CALL_SOON_THREADSAFE, args, count, names);
    }
    PyObject *handle = handle_new(self->state, &call);
    if (handle != NULL && (ready_put_shared((ReadyQueue *)ready, handle) < 0 || wake(self) < 0)) {
        Py_CLEAR(handle);
    }
    return handle;
}
