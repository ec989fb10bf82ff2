#include "core/ready.h"

#include "base/atfork.h"
#include "base/convert.h"
#include "core/deliver.h"
#include "core/idle_wait.h"
#include "core/report_again.h"

#include <limits.h>

/* The short cut: the pair that the registration yielded last, if the events are the same again. A new
 * reference, or NULL. */
static inline PyObject *
shared_pair(Instance *self, uint64_t epoll_data, uint32_t events)
{
    PyObject *pair = NULL;
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, epoll_data);
    if (present != NULL && present->reported == events && present->countdown > 1 &&
        self->lifecycle.state != CLOSED) {
        present->countdown--;
        pair = Py_NewRef(present->pair);
    }
    STATE_UNLOCK(self);
    return pair;
}

/* An event that was taken out of a batch, and its place there. */
typedef struct {
    uint64_t epoll_data;
    uint32_t events;
    int index;
    unsigned refills;
    WaitSnapshot snapshot; /* the batch's */
} TakenEvent;

/* Put back an event that was not handed out because of the exception that is set: it is the next again. Where
 * the iterator has gone on meanwhile, in Python code that ran or in another thread, the event is given back
 * to the kernel instead. */
static void
batch_take_back(Instance *self, Batch *batch, const TakenEvent *taken)
{
    if (batch->refills == taken->refills && batch->next == taken->index + 1) {
        batch->next = taken->index;
        return;
    }
    PyObject *error = PyErr_GetRaisedException();
    report_again(self, taken->epoll_data, &taken->snapshot);
    PyErr_SetRaisedException(error);
}

static inline TakenEvent
batch_take(const Batch *batch, int index)
{
    const struct epoll_event *event = &batch->array->events[index];
    return (TakenEvent){event->data.u64, event->events, index, batch->refills, batch->snapshot};
}

/* The slow path of batch_next. Python code may run, and use up the batch and fill it again: only values read
 * before may be used after it. `list`, which is incomplete or NULL, is hidden from the garbage collector
 * before that. 1 and a new reference; 0 where nothing is handed out; -1 with an exception. */
static int
batch_deliver(Instance *self, Batch *batch, TakenEvent taken, PyObject *list, PyObject **pair)
{
    if (list != NULL) {
        PyObject_GC_UnTrack(list);
    }
    *pair = deliver(self, &taken.snapshot, taken.epoll_data, taken.events);
    if (*pair == NULL && PyErr_Occurred()) {
        batch_take_back(self, batch, &taken);
        return -1;
    }
    return *pair != NULL;
}

/* Hand out the event at `index`. */
static inline int
batch_hand_out(Instance *self, Batch *batch, int index, PyObject *list, PyObject **pair)
{
    if (FREE_THREADED) {
        /* The short cut may wait for a lock, and let another thread use the batch. */
        const TakenEvent taken = batch_take(batch, index);
        *pair = shared_pair(self, taken.epoll_data, taken.events);
        return *pair != NULL ? 1 : batch_deliver(self, batch, taken, list, pair);
    }
    const struct epoll_event *event = &batch->array->events[index];
    *pair = shared_pair(self, event->data.u64, event->events);
    return *pair != NULL ? 1 : batch_deliver(self, batch, batch_take(batch, index), list, pair);
}

/* Hand out the next event of the batch; `list` as above. 1 and a new reference; 0 when it is used up; -1 with
 * an exception. Inlined even where the compiler would not: this is the cost of an event. */
__attribute__((always_inline)) static inline int
batch_next(Instance *self, Batch *batch, PyObject *list, PyObject **pair)
{
    int status = 0;
    while (status == 0 && batch->next < batch->count) {
        int index = batch->next++;
        status = batch_hand_out(self, batch, index, list, pair);
    }
    return status;
}

int
ready_take(Instance *self, Batch *batch, PyObject **pair)
{
    return batch_next(self, batch, NULL, pair);
}

void
ready_drop(Instance *self, Batch *batch)
{
    for (; batch->next < batch->count; batch->next++) {
        report_again(self, batch->array->events[batch->next].data.u64, &batch->snapshot);
    }
    EventArray *array = batch->array;
    batch->array = NULL;
    STATE_LOCK(self);
    if (self->batches.spare == NULL) {
        self->batches.spare = array;
        array = NULL;
    }
    STATE_UNLOCK(self);
    PyMem_Free(array);
}

/* A list of the pairs of a batch. While it is incomplete, no other code can find it: gc.get_objects() only
 * finds objects that the garbage collector tracks. */
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
        batch->next = 0; /* all of it is given back */
    }
    else if (!PyObject_GC_IsTracked(list)) {
        PyObject_GC_Track(list);
    }
    return list;
}

PyObject *
ready_list(Instance *self, const WaitRequest *wait)
{
    Batch batch = {0};
    IdleWait idle = IDLE_WAIT_START;
    PyObject *list = NULL;
    bool again;
    do {
        Py_CLEAR(list);
        list = wait_fetch(self, wait, &batch) == 0 ? batch_list(self, &batch) : NULL;
        again = list != NULL && PyList_GET_SIZE(list) == 0 && batch.fetched > 0 &&
                idle_wait_goes_on(self, wait, &batch, &idle);
    } while (again);
    idle_wait_end(&idle);
    ready_drop(self, &batch);
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
    PyTypeObject *type = module_type(instance->module->types.ready);
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
ready_batch(Instance *instance, const WaitRequest *wait)
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
    const WaitRequest wait = {.timeout = NO_TIMEOUT, .maxevents = INT_MAX};
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
    ready_drop(self->instance, &self->batch);
    Py_DECREF(self->instance);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(ready_doc,
"Ready events, as (data, events) pairs; made by Epoll.wait() and iter(Epoll).\n\n"
"Each event is checked when it is handed out: it is skipped if its registration has gone. Events that an\n"
"iterator has fetched and not handed out when it is dropped are reported again.");

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
