/* The state of the extension module in one interpreter. */
#ifndef PYEPOLL_MODULE_STATE_H
#define PYEPOLL_MODULE_STATE_H

#include "base/compat.h"

#include <stdatomic.h>

/*
 * The state lies in memory of the module object and is freed with it. The types refer to the module, but that
 * keeps it alive only until the garbage collector clears them: an Epoll in a reference cycle may outlive both
 * the type's reference and the state. Hence an object that stores a ModuleState pointer owns a reference to
 * the module object:
 * - it takes the reference (module_hold) when it stores the pointer and drops it (module_drop) as the last
 *   step of its deallocation. tp_clear does not drop it, so the pointer is valid as long as the object;
 * - tp_traverse visits it. Clearing such objects need not break a cycle through the module, since clearing
 *   the module (m_clear and its dict) drops every reference that the module has;
 * - after m_clear the members are NULL, and code of the objects may still run, from a finalizer or a weak
 *   reference's callback. Code that reads a member there checks for NULL; module_type() makes it an
 *   exception.
 */
struct AioState;

typedef struct {
    PyObject *object; /* the module itself, borrowed */
    struct {
        PyTypeObject *epoll;
        PyTypeObject *instance;
        PyTypeObject *ready;
        PyTypeObject *event_buffer;
        PyTypeObject *waker;
        PyTypeObject *timer;
        PyTypeObject *signals;
        PyTypeObject *child;
        PyTypeObject *selector;
    } types; /* set by module_exec() */
    struct {
        PyTypeObject *epoll;        /* the package's own Epoll (epoll_prepare_subclass); NULL until then */
        PyTypeObject *selector_key; /* selectors.SelectorKey (_use_keys); NULL until then */
        PyObject *event;            /* the enum Event (_use_events); NULL: events are ints */
        PyObject *signals;          /* dict: number -> member of signal.Signals (_use_signals) */
        PyObject *members;          /* dict: mask -> the Event for it (event_member) */
    } package;
    struct AioState *aio;       /* of the aio layer, which frees it; NULL until that is loaded */
    PyObject *instances;        /* dict: fd -> weak reference to the Instance that has it (instance_find) */
    atomic_int always_ready_fd; /* an eventfd that is always ready: it wakes the waiters (instance_wake) */
} ModuleState;

/* The definition of the module: module.c. */
extern PyModuleDef module_def;

/* The state of the module that defined `type` or the base of it that is ours. Borrowed. NULL with an
 * exception where the garbage collector has cleared the type. */
ModuleState *module_state_of(PyTypeObject *type);

/* A type of the module's; NULL with an exception when the module has been cleared. Borrowed. */
static inline PyTypeObject *
module_type(PyTypeObject *type)
{
    if (type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the module pyepoll._epoll has been cleared");
    }
    return type;
}

static inline ModuleState *
module_hold(ModuleState *state)
{
    Py_INCREF(state->object);
    return state;
}

/* `state` may be NULL. */
static inline void
module_drop(ModuleState *state)
{
    if (state != NULL) {
        Py_DECREF(state->object);
    }
}

#endif
