/* The C part of an event loop, and its functions for other files of the layer. */
#ifndef PYEPOLL_LOOP_H
#define PYEPOLL_LOOP_H

#include "aio/counters.h"
#include "aio/ready_queue.h"
#include "aio/state.h"

#include <stdatomic.h>
#include <stdint.h>

/* The last turn, if it had as many events as a turn takes, so that there may be more: poll.c. */
typedef struct {
    int64_t events; /* 0 if it had fewer */
    int64_t start;  /* when it had them, in nanoseconds of CLOCK_MONOTONIC */
} FullTurn;

/* The base of pyepoll.aio.EventLoop. The members are attributes that asyncio's code in Python reads and
 * writes too, under the same names with an underscore: each may be any object, or NULL, at any time. */
typedef struct {
    PyObject_HEAD
    PyObject *ready;     /* a ReadyQueue, normally */
    PyObject *scheduled; /* a list that is a heap of timers, normally */
    PyObject *selector;
    PyObject *debug;
    PyObject *closed;
    PyObject *stopping;
    PyObject *thread_id;
    PyObject *timer_cancelled_count;
    PyObject *clock_resolution;
    PyObject *task_factory;
    PyObject *internal_fds;
    PyObject *signal_handlers;
    PyObject *transports;    /* a WeakValueDictionary, normally: by fd */
    PyObject *transport_fds; /* its dict, once it was needed: reader_methods.c; or NULL */
    PyObject *default_executor;
    PyObject *executor_shutdown_called;
    PyObject *addresses;      /* the rows of the latest getaddrinfo(), or NULL: address.c */
    PyObject *pending_writes; /* a PendingWrites, normally: stream/stream.h */
    PyObject *wake_event;     /* a WakeEvent, or NULL; for `selector` */
    PyObject *options;        /* {"loop": this loop}, once it was needed: create.c; or NULL */
    PyObject *arrived;        /* a list of handles, or NULL: arrived.h; no attribute of Python */
    PyObject *csock;
    PyObject *ssock;

    AioState *state;
    ModuleState *module;         /* with a reference: base/module_state.h */
    atomic_int sleep;            /* whether other threads must wake the loop: inbox.h */
    bool all_turns;              /* the next _run_once() is run_forever()'s; only in the loop's thread */
    atomic_bool exposed;         /* its __dict__ was handed out: override.c */
    atomic_bool has_names;       /* an attribute was set that is in its __dict__ */
    _Atomic uint64_t overridden; /* the hooks that are replaced, as found out for ... */
    atomic_uint checked;         /* ... this version of the type; 0 for none */
    atomic_uint sets;            /* how often an attribute was set: override_check() */
    uint64_t addresses_query;    /* ... and what it was asked */
    LoopCounters counters;
    FullTurn full_turn; /* only in the loop's thread */
    unsigned epoch;     /* fork_epoch() of its process: loop_new */
#ifdef Py_GIL_DISABLED
    SpareHandles spare[HANDLE_KINDS]; /* of the thread that runs the loop: spare.c */
#endif
} EventLoop;

/* Whatever was set may be a hook: look again. */
static inline void
loop_look_again(EventLoop *self)
{
    Py_BEGIN_CRITICAL_SECTION(self); /* as in override_check() */
    atomic_fetch_add(&self->sets, 1);
    atomic_store(&self->checked, 0);
    Py_END_CRITICAL_SECTION();
}

/* The value of a member: borrowed, or NULL. */
static inline PyObject *
loop_member(PyObject *const *member)
{
    return __atomic_load_n(member, __ATOMIC_RELAXED);
}

/* Whether an object is a loop of ours, or of a subclass. */
static inline bool
loop_is_ours(const AioState *state, PyObject *loop)
{
    return Py_IS_TYPE(loop, state->loop.loop_class) || PyObject_TypeCheck(loop, state->loop.base_type);
}

/* The queue, if it is one of ours: borrowed, or NULL. Any Python code that runs may replace it. */
static inline ReadyQueue *
loop_queue(const EventLoop *self)
{
    PyObject *ready = loop_member(&self->ready);
    return ready != NULL && Py_IS_TYPE(ready, self->state->loop.queue_type) ? (ReadyQueue *)ready : NULL;
}

/* The heap of timers, if it is a list: borrowed, or NULL. Any Python code that runs may replace it. */
static inline PyObject *
loop_heap(const EventLoop *self)
{
    PyObject *scheduled = loop_member(&self->scheduled);
    return scheduled != NULL && PyList_CheckExact(scheduled) ? scheduled : NULL;
}

#endif
