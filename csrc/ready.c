#include "ready.h"

#include "base/atfork.h"
#include "convert.h"
#include "core/repair/stale.h"
#include "core/report_again.h"
#include "key.h"

#include <limits.h>

PyObject *
ready_event(ModuleState *module, uint32_t mask)
{
    PyObject *number = PyLong_FromUnsignedLong(mask);
    if (number == NULL || module->event_class == NULL || module->events == NULL) {
        return number;
    }
    /* With references: the class is Python code, in which the garbage collector may clear the module. */
    PyObject *class = Py_NewRef(module->event_class);
    PyObject *members = Py_NewRef(module->events);
    PyObject *event;
    if (PyDict_GetItemRef(members, number, &event) == 0) {
        event = PyObject_CallOneArg(class, number);
        if (event != NULL && PyDict_SetItem(members, number, event) < 0) {
            Py_CLEAR(event);
        }
    }
    Py_DECREF(members);
    Py_DECREF(class);
    Py_DECREF(number);
    return event;
}

/* The second of the pair. */
static PyObject *
events_of(Instance *self, uint32_t events, PyObject *data)
{
    int selected = self->selects ? key_events(self->module, data, events) : NO_KEY;
    return selected != NO_KEY ? PyLong_FromLong(selected) : ready_event(self->module, events);
}

/* What an event is handed out as, after the first or one with other events than the last: make the
 * pair, and keep it with its registration. `*again` is set when the registration was modified
 * meanwhile. A new reference; NULL without an exception where the registration has gone. */
static PyObject *
new_pair(Instance *self, uint64_t word, uint32_t events, PyObject *data, bool *again)
{
    PyObject *event = events_of(self, events, data);
    PyObject *pair = event != NULL ? PyTuple_Pack(2, data, event) : NULL;
    Py_XDECREF(event);
    if (pair == NULL) {
        return NULL;
    }
    PyObject *old = NULL;
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, word);
    bool kept = present != NULL && present->data == data;
    *again = present != NULL && !kept;
    if (kept) {
        old = present->pair;
        present->pair = Py_NewRef(pair);
        present->reported = events;
    }
    STATE_UNLOCK(self);
    Py_XDECREF(old);
    if (!kept) {
        Py_CLEAR(pair);
    }
    return pair;
}

/* An event that others registered. Its data is what select.epoll makes of the epoll data: the low half, an
 * int. The other half is not set by a program that sets only the fd. */
static PyObject *
foreign_pair(Instance *self, uint64_t word, uint32_t events)
{
    PyObject *event = ready_event(self->module, events);
    PyObject *data = PyLong_FromLong((int32_t)(uint32_t)word);
    PyObject *pair = event != NULL && data != NULL ? PyTuple_Pack(2, data, event) : NULL;
    Py_XDECREF(data);
    Py_XDECREF(event);
    return pair;
}

/* How far one look at the registration has come. */
typedef struct {
    PyObject *data; /* owned; NULL if there is none */
    bool check;     /* it is time to see whether the fd is open */
    bool ended;     /* nothing is to be handed out */
} Look;

static Look
look_up(Instance *self, uint64_t word, const Seen *seen)
{
    Look look = {0};
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, word);
    look.ended = self->standing == CLOSED ||
                 (present != NULL && interest_is_disarmed(present, seen->started));
    if (present != NULL && !look.ended) {
        look.data = Py_NewRef(present->data);
        look.check = present->countdown == 0 || --present->countdown == 0;
        if (look.check) {
            present->countdown = (uint16_t)(1 << present->interval);
            present->interval += present->interval < INTEREST_LAST_CHECK;
        }
        if (present->disarmed) {
            present->countdown = 1; /* keeps the short cut away from it */
        }
    }
    STATE_UNLOCK(self);
    return look;
}

/* What one event is handed out as, without the short cut. A new reference; NULL without an exception
 * where nothing is. */
static PyObject *
deliver(Instance *self, const Seen *seen, uint64_t word, uint32_t events)
{
    PyObject *pair = NULL;
    for (bool again = true; again;) {
        again = false;
        Look look = look_up(self, word, seen);
        if (look.data != NULL) {
            if (!look.check || stale_check_open(self, word)) {
                pair = new_pair(self, word, events, look.data, &again);
            }
            Py_DECREF(look.data);
        }
        else if (!look.ended && self->foreign && !instance_made(self, word)) {
            pair = foreign_pair(self, word, events);
        }
        else if (!look.ended) {
            again = stale_judge(self, seen, word);
        }
    }
    return pair;
}

/* The short cut: the pair that the registration yielded last, if the events are the same again. A new
 * reference, or NULL. */
static inline PyObject *
shared_pair(Instance *self, uint64_t word, uint32_t events)
{
    PyObject *pair = NULL;
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, word);
    if (present != NULL && present->reported == events && present->countdown > 1 &&
        self->standing != CLOSED) {
        present->countdown--;
        pair = Py_NewRef(present->pair);
    }
    STATE_UNLOCK(self);
    return pair;
}

/* An event that was taken out of a batch, and where it stood. */
typedef struct {
    uint64_t word;
    uint32_t events;
    int index;
    unsigned refills;
    Seen seen; /* the batch's */
} Taken;

/* The event was not handed out, for the exception that is set: it is the next again. Where Python code that
 * has run meanwhile, or another thread, went on with the same iterator, it is given back to the kernel
 * instead. */
static void
batch_take_back(Instance *self, Batch *batch, const Taken *taken)
{
    if (batch->refills == taken->refills && batch->next == taken->index + 1) {
        batch->next = taken->index;
        return;
    }
    PyObject *error = PyErr_GetRaisedException();
    report_again(self, taken->word, &taken->seen);
    PyErr_SetRaisedException(error);
}

static inline Taken
batch_take(const Batch *batch, int index)
{
    const struct epoll_event *event = &batch->array->events[index];
    return (Taken){event->data.u64, event->events, index, batch->refills, batch->seen};
}

/* What batch_next does without the short cut. Python code may run, and use the batch up and fill it again:
 * nothing is read from it that was not read before. Before that, the garbage collector is made to forget
 * `list`, which is incomplete or NULL. 1 and a new reference; 0 where nothing is handed out; -1 with an
 * exception. */
static int
batch_deliver(Instance *self, Batch *batch, Taken taken, PyObject *list, PyObject **pair)
{
    if (list != NULL) {
        PyObject_GC_UnTrack(list);
    }
    *pair = deliver(self, &taken.seen, taken.word, taken.events);
    if (*pair == NULL && PyErr_Occurred()) {
        batch_take_back(self, batch, &taken);
        return -1;
    }
    return *pair != NULL;
}

/* Hand out the event at `index`. */
static inline int
batch_give(Instance *self, Batch *batch, int index, PyObject *list, PyObject **pair)
{
    if (FREE_THREADED) {
        /* The short cut may wait for a lock, and let another thread use the batch. */
        const Taken taken = batch_take(batch, index);
        *pair = shared_pair(self, taken.word, taken.events);
        return *pair != NULL ? 1 : batch_deliver(self, batch, taken, list, pair);
    }
    const struct epoll_event *event = &batch->array->events[index];
    *pair = shared_pair(self, event->data.u64, event->events);
    return *pair != NULL ? 1 : batch_deliver(self, batch, batch_take(batch, index), list, pair);
}

/* Hand out the next event of the batch; `list` as above. 1 and a new reference; 0 when it is used up; -1 with
 * an exception. Inlined even where the compiler would not: it is what an event costs. */
__attribute__((always_inline)) static inline int
batch_next(Instance *self, Batch *batch, PyObject *list, PyObject **pair)
{
    int status = 0;
    while (status == 0 && batch->next < batch->count) {
        int index = batch->next++;
        status = batch_give(self, batch, index, list, pair);
    }
    return status;
}

/* Give back what was fetched and not handed out, and the array. */
static void
batch_drop(Instance *self, Batch *batch)
{
    for (; batch->next < batch->count; batch->next++) {
        report_again(self, batch->array->events[batch->next].data.u64, &batch->seen);
    }
    Array *array = batch->array;
    batch->array = NULL;
    STATE_LOCK(self);
    if (self->spare == NULL) {
        self->spare = array;
        array = NULL;
    }
    STATE_UNLOCK(self);
    PyMem_Free(array);
}

/* A list of what the batch hands out. As long as it is incomplete, no other code finds it: not by
 * gc.get_objects() either, which knows what the garbage collector knows. */
static PyObject *
batch_list(Instance *self, Batch *batch)
{
    PyObject *list = PyList_New(batch->count);
    PyObject *pair;
    Py_ssize_t length = 0;
    int status = -1;
    if (FREE_THREADED && list != NULL) {
        PyObject_GC_UnTrack(list);
    }
    while (list != NULL && (status = batch_next(self, batch, list, &pair)) > 0) {
        PyList_SET_ITEM(list, length++, pair);
    }
    if (status < 0 || (length < batch->count && PyList_SetSlice(list, length, batch->count, NULL) < 0)) {
        Py_CLEAR(list);
        batch->next = 0; /* nobody gets any of it */
    }
    else if (!PyObject_GC_IsTracked(list)) {
        PyObject_GC_Track(list);
    }
    return list;
}

PyObject *
ready_list(Instance *self, const WaitFor *wait)
{
    Batch batch = {0};
    Idle idle = IDLE_START;
    PyObject *list = NULL;
    bool again;
    do {
        Py_CLEAR(list);
        list = wait_fetch(self, wait, &batch) == 0 ? batch_list(self, &batch) : NULL;
        again = list != NULL && PyList_GET_SIZE(list) == 0 && batch.fetched > 0 &&
                wait_goes_on(self, wait, &batch, &idle);
    } while (again);
    wait_idle_end(&idle);
    batch_drop(self, &batch);
    return list;
}

typedef struct {
    PyObject_HEAD
    Instance *instance;
    Batch batch;
    bool endless;
    unsigned waiter; /* 0, or the fork_epoch() of the process in which a thread waits for the next batch */
} Ready;

static Ready *
ready_new(Instance *instance, bool endless)
{
    PyTypeObject *type = module_type(instance->module->ready_type);
    Ready *self = type != NULL ? PyObject_GC_New(Ready, type) : NULL;
    if (self == NULL) {
        return NULL;
    }
    self->instance = (Instance *)Py_NewRef(instance);
    self->batch = (Batch){0};
    self->endless = endless;
    self->waiter = 0;
    PyObject_GC_Track(self);
    return self;
}

PyObject *
ready_endless(Instance *instance)
{
    return (PyObject *)ready_new(instance, true);
}

PyObject *
ready_batch(Instance *instance, const WaitFor *wait)
{
    Ready *self = ready_new(instance, false);
    if (self != NULL && wait_batch(instance, wait, &self->batch) != 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static bool
is_waiting(const Ready *self)
{
    return self->waiter == fork_epoch();
}

static int
refuse_waiting(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "this iterator is waiting in another thread: give each thread one of its own");
    return -1;
}

/* The next batch of an endless iteration. 0; 1 when it has ended; -1 with an exception. */
static int
ready_refill(Ready *self)
{
    const WaitFor wait = {.timeout = FOREVER, .maxevents = INT_MAX};
    /* Another thread may have begun to wait while this one made an event's pair. */
    if (is_waiting(self)) {
        return refuse_waiting();
    }
    self->waiter = fork_epoch();
    self->batch.refills++;
    int status = wait_batch(self->instance, &wait, &self->batch);
    self->waiter = 0;
    return status;
}

static PyObject *
ready_next(Ready *self)
{
    PyObject *pair = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (is_waiting(self)) {
        refuse_waiting();
    }
    else {
        while (batch_next(self->instance, &self->batch, NULL, &pair) == 0 && self->endless &&
               ready_refill(self) == 0) {
        }
    }
    Py_END_CRITICAL_SECTION();
    return pair;
}

static int
ready_traverse(Ready *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->instance);
    return 0;
}

static void
ready_dealloc(Ready *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    batch_drop(self->instance, &self->batch);
    Py_DECREF(self->instance);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(ready_doc,
"Ready events, as (data, events) pairs; made by Epoll.wait() and iter(Epoll).\n\n"
"Each event is checked when it is handed out: one whose registration has gone is passed over. What\n"
"an iterator has fetched and not handed out when it is dropped is reported again.");

static PyType_Slot ready_slots[] = {
    {Py_tp_doc,      (void *)ready_doc},
    {Py_tp_iter,     PyObject_SelfIter},
    {Py_tp_iternext, ready_next       },
    {Py_tp_traverse, ready_traverse   },
    {Py_tp_dealloc,  ready_dealloc    },
    {0,              NULL             },
};

PyType_Spec ready_spec = {
    .name = "pyepoll._epoll.Ready",
    .basicsize = sizeof(Ready),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ready_slots,
};
