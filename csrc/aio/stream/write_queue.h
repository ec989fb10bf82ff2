/* The data that a transport has not sent yet: a queue of bytes objects, the first of which may have been sent
 * in part. Plain data: nothing here runs Python code but for the release of bytes objects. */
#ifndef PYEPOLL_AIO_WRITE_QUEUE_H
#define PYEPOLL_AIO_WRITE_QUEUE_H

#include "base/compat.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* So many fit without memory of their own: the head and the body of a response. */
enum { QUEUE_FIXED = 2 };

typedef struct {
    PyObject **items; /* `fixed`, or allocated */
    PyObject *fixed[QUEUE_FIXED];
    uint32_t capacity;
    uint32_t head;    /* index of the first */
    uint32_t count;   /* how many */
    uint32_t cleared; /* how often queue_clear() has been called: a send without the GIL looks */
    Py_ssize_t sent;  /* how much of the first has been sent */
    Py_ssize_t size;  /* bytes not yet sent */
} WriteQueue;

void queue_init(WriteQueue *queue);

/* Make room for so many more: the next calls of queue_append() succeed. 0, or -1 with MemoryError. */
int queue_reserve(WriteQueue *queue, Py_ssize_t more);

/* Append exact, non-empty bytes, with a new reference. 0, or -1 with MemoryError. */
int queue_append(WriteQueue *queue, PyObject *data);

/* Describe what is to be sent in at most `room` entries; return how many, and their bytes in `*size`. */
int queue_describe(const WriteQueue *queue, struct iovec *entries, int room, Py_ssize_t *size);

/* Remove `count` bytes, at most `size`, from the front. */
void queue_consume(WriteQueue *queue, Py_ssize_t count);

void queue_clear(WriteQueue *queue);

#endif
