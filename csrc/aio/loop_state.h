/* The state of the loop's files in one interpreter: types, names, and asyncio's own methods. */
#ifndef PYEPOLL_LOOP_STATE_H
#define PYEPOLL_LOOP_STATE_H

#include "base/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Methods of a loop that a subclass, an instance or a patched class may replace (override.c). Those up to
 * STOCK_METHODS have a C version in our class; asyncio's own version may have been replaced as well. */
enum {
    CALL_AT,
    CALL_LATER,
    CALL_SOON,
    CALL_SOON_THREADSAFE,
    CREATE_FUTURE,
    CREATE_TASK,
    GET_DEBUG,
    READ_FROM_SELF,
    RUN_FOREVER,
    RUN_ONCE,
    TIME,
    STOCK_METHODS,
    PROCESS_EVENTS = STOCK_METHODS,
    ACCEPT_CONNECTION,
    ADD_CALLBACK,
    CHECK_CLOSED,
    CONNECT_CALLBACK,
    CONNECT_SOCK,
    CREATE_TRANSPORT,
    ENSURE_RESOLVED,
    MAKE_TRANSPORT,
    PRIVATE_CALL_SOON,
    PROCESS_SELF_DATA,
    RUN_IN_EXECUTOR,
    SOCK_CONNECT,
    TIMER_HANDLE_CANCELLED,
    WRITE_TO_SELF,
    ADD_READER, /* the next four in the order of READER, WRITER: fdtable.h */
    ADD_WRITER,
    REMOVE_READER,
    REMOVE_WRITER,
    ENSURE_NO_TRANSPORT,
    LOOP_METHODS /* with STOCK_METHODS at most 64: override.h */
};

/* Other names that the loop's files look up. */
enum {
    LOOP_CANCEL,
    LOOP_CANCELLED,
    LOOP_CONNECTION_DONE,
    LOOP_CONTEXT,
    LOOP_EXTRA,
    LOOP_LOOP,
    LOOP_NAME,
    LOOP_RUN,
    LOOP_SELECT,
    LOOP_SERVE,
    LOOP_SERVER,
    LOOP_SLOW,
    LOOP_NAMES
};

/* Values of modules that a program may replace: freezegun replaces time.monotonic, for example. */
enum {
    GLOBAL_FUTURE,
    GLOBAL_GETADDRINFO,
    GLOBAL_HANDLE,
    GLOBAL_MONOTONIC,
    GLOBAL_READ,
    GLOBAL_SOCKET_CLASS,
    GLOBAL_SOCKET_MODULE,
    GLOBAL_TASK,
    GLOBAL_TIME,
    GLOBAL_WRITE,
    LOOP_GLOBALS
};

typedef struct {
    PyObject *dict; /* of the module */
    PyObject *name;
    PyObject *value; /* at load; NULL: already replaced */
} LoopGlobal;

enum { KIND_HANDLE, KIND_TIMER, HANDLE_KINDS };

/* Dead handles of one kind, to be used again. */
typedef struct {
    PyObject *first; /* linked: spare.c */
    int count;
} SpareHandles;

typedef struct {
    PyTypeObject *base_type;  /* _LoopBase */
    PyTypeObject *loop_class; /* pyepoll.aio.EventLoop; NULL until _learn_loop() */
    PyTypeObject *wake_event_type;
    PyTypeObject *queue_type;    /* ReadyQueue */
    PyTypeObject *handle_type;   /* our Handle; NULL where asyncio's has another layout than handle.h */
    PyTypeObject *timer_type;    /* our TimerHandle; NULL together with handle_type */
    PyTypeObject *stock_handle;  /* asyncio.Handle */
    PyTypeObject *stock_timer;   /* asyncio.TimerHandle */
    PyObject *threadsafe_handle; /* asyncio's _ThreadSafeHandle; NULL before CPython 3.14 */
    PyTypeObject *stock_loop;    /* asyncio.SelectorEventLoop; NULL until _learn_loop() */
    PyTypeObject *selector_type; /* pyepoll.aio.LoopSelector */
    PyTypeObject *executor_type; /* concurrent.futures.ThreadPoolExecutor */
    PyObject *addresses;         /* a dict: what getaddrinfo() returned: address.c */
    PyObject *report_error;      /* the function for an exception in a callback */
    PyObject *handle_run;        /* asyncio.Handle._run as it was at load */
    PyObject *handle_cancel;     /* asyncio's cancel(), of Handle and TimerHandle */
    PyObject *timer_cancel;
    PyObject *names[LOOP_NAMES];
    PyObject *method_names[LOOP_METHODS];
    PyObject *methods[LOOP_METHODS];       /* as our class has them; NULL: replaced before it was made */
    PyObject *stock_methods[LOOP_METHODS]; /* as asyncio's class has them */
    LoopGlobal globals[LOOP_GLOBALS];
    PyObject *context_names;      /* ("context",) */
    PyObject *loop_names;         /* ("loop",) */
    PyObject *transport_names[2]; /* ("extra", "server"), and with "context" */
    PyObject *task_names;         /* ("loop", "name", "context") */
    PyObject *zero;
    int watcher;                /* of the clock's modules: globals.c */
    bool watching;              /* ... if there is one */
    atomic_uint clock_checked;  /* when the clock was found to be stock; 0: look again */
    atomic_uint run_version;    /* of Handle's type, when _run() was found to be asyncio's */
    atomic_uint select_version; /* of a selector's type, when its select() was found to be in C */
#ifndef Py_GIL_DISABLED
    SpareHandles spare[HANDLE_KINDS];
#endif
} LoopState;

/* The value of a module's global, which may have been replaced: borrowed, or NULL. */
static inline PyObject *
loop_global(const LoopGlobal *global)
{
    return PyDict_GetItemWithError(global->dict, global->name);
}

#endif
