#include "aio/loop_load.h"

#include "aio/globals.h"
#include "aio/handle.h"
#include "aio/handle_type.h"
#include "aio/imports.h"
#include "aio/override.h"
#include "aio/spare.h"

static const char *const names[LOOP_NAMES] = {
    [LOOP_CANCEL] = "cancel",
    [LOOP_CANCELLED] = "_cancelled",
    [LOOP_CONNECTION_DONE] = "_connection_done",
    [LOOP_CONTEXT] = "context",
    [LOOP_EXTRA] = "extra",
    [LOOP_LOOP] = "loop",
    [LOOP_NAME] = "name",
    [LOOP_RUN] = "_run",
    [LOOP_SELECT] = "select",
    [LOOP_SERVE] = "_serve",
    [LOOP_SERVER] = "server",
    [LOOP_SLOW] = "slow_callback_duration",
};

static const char *const methods[LOOP_METHODS] = {
    [ACCEPT_CONNECTION] = "_accept_connection2",
    [ADD_CALLBACK] = "_add_callback",
    [ADD_READER] = "_add_reader",
    [ADD_WRITER] = "_add_writer",
    [CALL_AT] = "call_at",
    [CALL_LATER] = "call_later",
    [CALL_SOON] = "call_soon",
    [CALL_SOON_THREADSAFE] = "call_soon_threadsafe",
    [CHECK_CLOSED] = "_check_closed",
    [CONNECT_CALLBACK] = "_sock_connect_cb",
    [CONNECT_SOCK] = "_connect_sock",
    [CREATE_FUTURE] = "create_future",
    [CREATE_TASK] = "create_task",
    [CREATE_TRANSPORT] = "_create_connection_transport",
    [ENSURE_NO_TRANSPORT] = "_ensure_fd_no_transport",
    [ENSURE_RESOLVED] = "_ensure_resolved",
    [GET_DEBUG] = "get_debug",
    [MAKE_TRANSPORT] = "_make_socket_transport",
    [PRIVATE_CALL_SOON] = "_call_soon",
    [PROCESS_EVENTS] = "_process_events",
    [PROCESS_SELF_DATA] = "_process_self_data",
    [READ_FROM_SELF] = "_read_from_self",
    [REMOVE_READER] = "_remove_reader",
    [REMOVE_WRITER] = "_remove_writer",
    [RUN_FOREVER] = "run_forever",
    [RUN_IN_EXECUTOR] = "run_in_executor",
    [RUN_ONCE] = "_run_once",
    [SOCK_CONNECT] = "sock_connect",
    [TIME] = "time",
    [TIMER_HANDLE_CANCELLED] = "_timer_handle_cancelled",
    [WRITE_TO_SELF] = "_write_to_self",
};

/* 0, or -1 with an exception. */
static int
intern_names(LoopState *state)
{
    for (int i = 0; i < LOOP_NAMES; i++) {
        if ((state->names[i] = PyUnicode_InternFromString(names[i])) == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < LOOP_METHODS; i++) {
        if ((state->method_names[i] = PyUnicode_InternFromString(methods[i])) == NULL) {
            return -1;
        }
    }
    PyObject *const *name = state->names;
    state->context_names = PyTuple_Pack(1, name[LOOP_CONTEXT]);
    state->loop_names = PyTuple_Pack(1, name[LOOP_LOOP]);
    state->transport_names[false] = PyTuple_Pack(2, name[LOOP_EXTRA], name[LOOP_SERVER]);
    state->transport_names[true] = PyTuple_Pack(3, name[LOOP_EXTRA], name[LOOP_SERVER], name[LOOP_CONTEXT]);
    state->task_names = PyTuple_Pack(3, name[LOOP_LOOP], name[LOOP_NAME], name[LOOP_CONTEXT]);
    state->zero = PyLong_FromLong(0);
    return state->context_names != NULL && state->transport_names[false] != NULL &&
                   state->transport_names[true] != NULL && state->loop_names != NULL &&
                   state->task_names != NULL && state->zero != NULL
               ? 0
               : -1;
}

/* 0, or -1 with an exception. */
static int
find_globals(LoopState *state)
{
    static const struct {
        const char *module;
        const char *name;
    } globals[LOOP_GLOBALS] = {
        [GLOBAL_FUTURE] = {"asyncio.futures",     "Future"     },
        [GLOBAL_GETADDRINFO] = {"socket",              "getaddrinfo"},
        [GLOBAL_HANDLE] = {"asyncio.events",      "Handle"     },
        [GLOBAL_MONOTONIC] = {"time",                "monotonic"  },
        [GLOBAL_READ] = {"os",                  "read"       },
        [GLOBAL_TASK] = {"asyncio.tasks",       "Task"       },
        [GLOBAL_TIME] = {"asyncio.base_events", "time"       },
        [GLOBAL_WRITE] = {"os",                  "write"      },
        [GLOBAL_SOCKET_CLASS] = {"socket",              "socket"     },
        [GLOBAL_SOCKET_MODULE] = {"asyncio.base_events", "socket"     },
    };
    for (int i = 0; i < LOOP_GLOBALS; i++) {
        LoopGlobal *global = &state->globals[i];
        global->dict = imported(globals[i].module, "__dict__");
        global->name = PyUnicode_InternFromString(globals[i].name);
        global->value = global->dict != NULL && global->name != NULL ? Py_XNewRef(loop_global(global)) : NULL;
        if (global->value == NULL) {
            return -1;
        }
    }
    globals_watch(state);
    return 0;
}

int
loop_state_init(PyObject *module, LoopState *state)
{
    if (intern_names(state) < 0 || find_globals(state) < 0) {
        return -1;
    }
    state->stock_handle = (PyTypeObject *)imported("asyncio.events", "Handle");
    state->stock_timer = (PyTypeObject *)imported("asyncio.events", "TimerHandle");
    if (state->stock_handle == NULL || state->stock_timer == NULL) {
        return -1;
    }
    state->executor_type = (PyTypeObject *)imported("concurrent.futures.thread", "ThreadPoolExecutor");
    state->addresses = PyDict_New();
    if (state->executor_type == NULL || state->addresses == NULL) {
        return -1;
    }
    state->threadsafe_handle = imported("asyncio.events", "_ThreadSafeHandle");
    PyErr_Clear();
    state->handle_run = PyObject_GetAttr((PyObject *)state->stock_handle, state->names[LOOP_RUN]);
    state->handle_cancel = PyObject_GetAttr((PyObject *)state->stock_handle, state->names[LOOP_CANCEL]);
    state->timer_cancel = PyObject_GetAttr((PyObject *)state->stock_timer, state->names[LOOP_CANCEL]);
    if (state->handle_run == NULL || state->handle_cancel == NULL || state->timer_cancel == NULL) {
        return -1;
    }
    if (!override_is_asyncios(state->handle_run)) {
        Py_CLEAR(state->handle_run);
    }
    return handle_type_init(module, state);
}

int
loop_state_traverse(const LoopState *state, visitproc visit, void *arg)
{
    Py_VISIT(state->base_type);
    Py_VISIT(state->loop_class);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->wake_event_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->timer_type);
    Py_VISIT(state->stock_handle);
    Py_VISIT(state->stock_timer);
    Py_VISIT(state->stock_loop);
    Py_VISIT(state->threadsafe_handle);
    Py_VISIT(state->selector_type);
    Py_VISIT(state->executor_type);
    Py_VISIT(state->addresses);
    Py_VISIT(state->report_error);
    Py_VISIT(state->handle_run);
    Py_VISIT(state->handle_cancel);
    Py_VISIT(state->timer_cancel);
    for (int i = 0; i < LOOP_METHODS; i++) {
        Py_VISIT(state->methods[i]);
        Py_VISIT(state->stock_methods[i]);
    }
    for (int i = 0; i < LOOP_GLOBALS; i++) {
        Py_VISIT(state->globals[i].dict);
        Py_VISIT(state->globals[i].value);
    }
#ifndef Py_GIL_DISABLED
    return spare_traverse(state->spare, visit, arg);
#else
    return 0;
#endif
}

void
loop_state_clear(LoopState *state)
{
#ifndef Py_GIL_DISABLED
    spare_free(state->spare);
#endif
    Py_CLEAR(state->base_type);
    Py_CLEAR(state->loop_class);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->wake_event_type);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->timer_type);
    Py_CLEAR(state->selector_type);
    Py_CLEAR(state->report_error);
    for (int i = 0; i < LOOP_METHODS; i++) {
        Py_CLEAR(state->methods[i]);
    }
}

void
loop_state_free(LoopState *state)
{
    loop_state_clear(state);
    globals_unwatch(state);
    for (int i = 0; i < LOOP_METHODS; i++) {
        Py_CLEAR(state->stock_methods[i]);
        Py_CLEAR(state->method_names[i]);
    }
    for (int i = 0; i < LOOP_GLOBALS; i++) {
        Py_CLEAR(state->globals[i].dict);
        Py_CLEAR(state->globals[i].name);
        Py_CLEAR(state->globals[i].value);
    }
    for (int i = 0; i < LOOP_NAMES; i++) {
        Py_CLEAR(state->names[i]);
    }
    Py_CLEAR(state->context_names);
    Py_CLEAR(state->loop_names);
    Py_CLEAR(state->transport_names[false]);
    Py_CLEAR(state->transport_names[true]);
    Py_CLEAR(state->task_names);
    Py_CLEAR(state->zero);
    Py_CLEAR(state->handle_run);
    Py_CLEAR(state->handle_cancel);
    Py_CLEAR(state->timer_cancel);
    Py_CLEAR(state->stock_loop);
    Py_CLEAR(state->threadsafe_handle);
    Py_CLEAR(state->stock_handle);
    Py_CLEAR(state->stock_timer);
    Py_CLEAR(state->executor_type);
    Py_CLEAR(state->addresses);
}
