#include "aio/globals.h"

#include <limits.h>
#include <stdatomic.h>

#if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)

/* How often a watched dict has changed, in any interpreter: a watcher learns no more. Never 0. */
static atomic_uint changes = 1;

static int
note_change(PyDict_WatchEvent Py_UNUSED(event), PyObject *Py_UNUSED(dict), PyObject *Py_UNUSED(key),
            PyObject *Py_UNUSED(value))
{
    if (atomic_fetch_add(&changes, 1) == UINT_MAX) {
        atomic_fetch_add(&changes, 1);
    }
    return 0;
}

static const int watched[] = {GLOBAL_TIME, GLOBAL_MONOTONIC};

enum { WATCHED = sizeof(watched) / sizeof(watched[0]) };

void
globals_watch(LoopState *state)
{
    state->watcher = PyDict_AddWatcher(note_change);
    state->watching = state->watcher >= 0;
    bool complete = state->watching;
    for (int i = 0; complete && i < WATCHED; i++) {
        complete = PyDict_Watch(state->watcher, state->globals[watched[i]].dict) == 0;
    }
    if (!complete) {
        PyErr_Clear(); /* an interpreter has eight watchers */
        globals_unwatch(state);
    }
}

void
globals_unwatch(LoopState *state)
{
    if (state->watching) {
        /* A dict keeps the number of its watcher, and the next watcher may get the same one. */
        int status = 0;
        for (int i = 0; i < WATCHED; i++) {
            status |= PyDict_Unwatch(state->watcher, state->globals[watched[i]].dict);
        }
        if ((PyDict_ClearWatcher(state->watcher) | status) < 0) {
            PyErr_Clear();
        }
    }
    state->watching = false;
    state->clock_checked = 0;
}

/* The count of changes when a clock was found to be stock may be kept; 0 where nothing is watched. */
static unsigned
count_changes(const LoopState *state)
{
    return state->watching ? atomic_load_explicit(&changes, memory_order_relaxed) : 0;
}

#else

void
globals_watch(LoopState *Py_UNUSED(state))
{
}

void
globals_unwatch(LoopState *Py_UNUSED(state))
{
}

static unsigned
count_changes(const LoopState *Py_UNUSED(state))
{
    return 0;
}

#endif

bool
globals_have_stock_clock(LoopState *state)
{
    unsigned now = count_changes(state);
    if (now != 0 && now == state->clock_checked) {
        return true;
    }
    const LoopGlobal *time = &state->globals[GLOBAL_TIME], *clock = &state->globals[GLOBAL_MONOTONIC];
    bool stock = loop_global(time) == time->value && loop_global(clock) == clock->value;
    if (now != 0) {
        state->clock_checked = stock ? now : 0;
    }
    return stock;
}
