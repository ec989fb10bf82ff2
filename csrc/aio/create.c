#include "aio/create.h"

#include "aio/override.h"
#include "aio/schedule.h"

PyObject *
create_future(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    const LoopState *state = &self->state->loop;
    PyObject *type = loop_global(&state->globals[GLOBAL_FUTURE]);
    if (type == NULL || (loop_overridden(self) & STOCK_HOOK(CREATE_FUTURE)) != 0) {
        return schedule_stock(self, CREATE_FUTURE, (PyObject *[]){NULL}, 0, NULL);
    }
    PyObject *args[] = {NULL, (PyObject *)self};
    return PyObject_Vectorcall(type, args + 1, PY_VECTORCALL_ARGUMENTS_OFFSET, state->loop_names);
}

/* Read (coro, *, name=None, context=None). False, without an exception, for anything but that:
 * other names, and names that are not interned, are asyncio's business. */
static bool
parse_task(const LoopState *state, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **name,
           PyObject **context)
{
    Py_ssize_t named = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *key = PyTuple_GET_ITEM(names, i);
        if (key == state->names[LOOP_NAME]) {
            *name = args[count + i];
        }
        else if (key == state->names[LOOP_CONTEXT]) {
            *context = args[count + i];
        }
        else {
            return false;
        }
    }
    return count == 1;
}

PyObject *
create_task(EventLoop *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const LoopState *state = &self->state->loop;
    PyObject *type = loop_global(&state->globals[GLOBAL_TASK]);
    PyObject *name = Py_None, *context = Py_None;
    if (type == NULL || loop_member(&self->task_factory) != Py_None ||
        !schedule_is_plain(self, HOOK(CHECK_CLOSED) | STOCK_HOOK(CREATE_TASK)) ||
        !parse_task(state, args, count, names, &name, &context)) {
        return schedule_stock(self, CREATE_TASK, args, count, names);
    }
    PyObject *all[] = {NULL, args[0], (PyObject *)self, name, context};
    /* asyncio passes all of them. To its own class the default ones make no difference, but take time. */
    bool short_form = name == Py_None && context == Py_None && type == state->globals[GLOBAL_TASK].value;
    return PyObject_Vectorcall(type, all + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                               short_form ? state->loop_names : state->task_names);
}
