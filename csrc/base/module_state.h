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
 *   reference's callback. Whoever reads a member there copes with NULL; module_type() makes it an exception.
 */
typedef struct {
    PyObject *object; /* the module itself, borrowed */
    PyTypeObject *epoll_type;
    PyTypeObject *instance_type;
    PyTypeObject *ready_type;
    PyTypeObject *buffer_type;
    PyTypeObject *waker_type;
    PyTypeObject *selector_type;
    PyTypeObject *plain_epoll; /* the package's Epoll: its methods are the core's; NULL until it is made */
    PyTypeObject *key_type;    /* selectors.SelectorKey; NULL until the package gives it */
    PyObject *event_class;     /* the package's Event; NULL: events are plain ints */
    PyObject *events;          /* dict: mask -> the member that a wait yields for it */
    PyObject *instances;       /* dict: fd -> weak reference to the Instance that has it, for fromfd */
    atomic_int ready_fd;       /* an eventfd that is always ready: what wakes the waiters */
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
