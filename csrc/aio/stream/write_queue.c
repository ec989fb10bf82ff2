#include "aio/stream/write_queue.h"

void
queue_init(WriteQueue *queue)
{
    *queue = (WriteQueue){.capacity = QUEUE_FIXED};
    queue->items = queue->fixed;
}

static int
make_room(WriteQueue *queue, size_t more)
{
    size_t needed = queue->count + more;
    if (queue->head >= queue->capacity / 2 && needed <= queue->capacity) {
        /* At least half has been consumed: moving the rest costs no more than consuming did. */
        memmove(queue->items, queue->items + queue->head, queue->count * sizeof(PyObject *));
        queue->head = 0;
        return 0;
    }
    bool fixed = queue->items == queue->fixed;
    size_t capacity = (size_t)queue->capacity * 2;
    while (capacity < queue->head + needed) {
        capacity *= 2;
    }
    PyObject **items = capacity <= UINT32_MAX / 2
                           ? PyMem_Realloc(fixed ? NULL : queue->items, capacity * sizeof(PyObject *))
                           : NULL;
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (fixed) {
        memcpy(items, queue->fixed, sizeof(queue->fixed));
    }
    queue->items = items;
    queue->capacity = (uint32_t)capacity;
    return 0;
}

int
queue_reserve(WriteQueue *queue, Py_ssize_t more)
{
    size_t used = (size_t)queue->head + queue->count;
    return used + (size_t)more > queue->capacity ? make_room(queue, (size_t)more) : 0;
}

int
queue_append(WriteQueue *queue, PyObject *data)
{
    if (queue_reserve(queue, 1) < 0) {
        return -1;
    }
    queue->items[queue->head + queue->count++] = Py_NewRef(data);
    queue->size += PyBytes_GET_SIZE(data);
    return 0;
}

int
queue_describe(const WriteQueue *queue, struct iovec *entries, int room, Py_ssize_t *size)
{
    int count = queue->count < (uint32_t)room ? (int)queue->count : room;
    *size = 0;
    for (int i = 0; i < count; i++) {
        PyObject *data = queue->items[queue->head + (uint32_t)i];
        Py_ssize_t skip = i == 0 ? queue->sent : 0;
        entries[i].iov_base = PyBytes_AS_STRING(data) + skip;
        entries[i].iov_len = (size_t)(PyBytes_GET_SIZE(data) - skip);
        *size += PyBytes_GET_SIZE(data) - skip;
    }
    return count;
}

/* Nothing is left: give the memory back. */
static void
reset(WriteQueue *queue)
{
    if (queue->items != queue->fixed) {
        PyMem_Free(queue->items);
        queue->items = queue->fixed;
        queue->capacity = QUEUE_FIXED;
    }
    queue->head = queue->count = 0;
    queue->sent = queue->size = 0;
}

void
queue_consume(WriteQueue *queue, Py_ssize_t count)
{
    queue->size -= count;
    while (count > 0) {
        PyObject *data = queue->items[queue->head];
        Py_ssize_t left = PyBytes_GET_SIZE(data) - queue->sent;
        if (count < left) {
            queue->sent += count;
            return;
        }
        count -= left;
        queue->sent = 0;
        queue->head++;
        queue->count--;
        Py_DECREF(data);
    }
    if (queue->count == 0) {
        reset(queue);
    }
}

void
queue_clear(WriteQueue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        Py_DECREF(queue->items[queue->head + i]);
    }
    queue->cleared++;
    reset(queue);
}
