/* Which methods of a loop a subclass, the instance or a patch of a class has replaced. */
#ifndef PYEPOLL_OVERRIDE_H
#define PYEPOLL_OVERRIDE_H

#include "aio/loop.h"
#include "aio/type_version.h"

#define HOOK(method) (UINT64_C(1) << (method))

/* asyncio's own version of a method that our class replaces. */
#define STOCK_HOOK(method) (UINT64_C(1) << (LOOP_METHODS + (method)))

#define BOTH_HOOKS(method) (HOOK(method) | STOCK_HOOK(method))

/* Whether a function is asyncio's own, not a replacement that was there before our class. */
bool override_is_asyncios(PyObject *object);

/* Find it out again. */
uint64_t override_check(EventLoop *self);

/* The HOOKs and STOCK_HOOKs that are not as they were at load: all, where that cannot be found out. */
static inline uint64_t
loop_overridden(EventLoop *self)
{
    unsigned version = type_version(Py_TYPE(self));
    if (version != 0 && version == atomic_load_explicit(&self->checked, memory_order_acquire)) {
        return atomic_load_explicit(&self->overridden, memory_order_relaxed);
    }
    return override_check(self);
}

/* Take note of the methods that our class and asyncio's have now. 0, or -1 with an exception. */
int override_learn(LoopState *state, PyTypeObject *ours, PyTypeObject *stock);

/* Find out whether asyncio.Handle._run() is asyncio's own. */
bool override_check_run(LoopState *state);

/* asyncio.Handle._run() is asyncio's own. */
static inline bool
override_run_is_stock(LoopState *state)
{
    unsigned version = type_version(state->stock_handle);
    return (version != 0 && version == atomic_load_explicit(&state->run_version, memory_order_relaxed)) ||
           override_check_run(state);
}

/* select() of a selector of ours is its class's. */
bool override_has_own_select(LoopState *state, PyObject *selector);

#endif
