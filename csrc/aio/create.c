#include "aio/create.h"

#include "aio/override.h"
#include "aio/schedule.h"

/* {"loop": self}: a new reference, or NULL with an exception. To make it takes a quarter of the time of
 * create_future(). It refers to the loop, which keeps it only until it is closed. */
static PyObject *
call_options(EventLoop *self)
{
    PyObject *options;
    Py_BEGIN_CRITICAL_SECTION(self);
    options = Py_XNewRef(self->options);
    Py_END_CRITICAL_SECTION();
    if (options != NULL) {
        return options;
    }
    options = PyDict_New();
    if (options != NULL &&
        PyDict_SetItem(options, self->state->loop.names[LOOP_LOOP], (PyObject *)self) < 0) {
        Py_CLEAR(options);
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->options == NULL && self->closed == Py_False) {
        self->options = Py_XNewRef(options);
    }
    Py_END_CRITICAL_SECTION();
    return options;
}

/* type(*args, loop=self): a new reference, or NULL with an exception. Only for the class that asyncio had at
 * load, which leaves the dict as it is. Takes over `args`, which may be NULL with an exception. */
static PyObject *
call_with_loop(EventLoop *self, PyObject *type, PyObject *args)
{
    PyObject *options = args != NULL ? call_options(self) : NULL;
    PyObject *object = options != NULL ? PyObject_Call(type, args, options) : NULL;
    Py_XDECREF(options);
    Py_XDECREF(args);
    return object;
}

PyObject *
create_future(EventLoop *self, PyObject *Py_UNUSED(ignored))
{
    const LoopState *state = &self->state->loop;
    PyObject *type = loop_global(&state->globals[GLOBAL_FUTURE]);
    if (type == NULL || (loop_overridden(self) & STOCK_HOOK(CREATE_FUTURE)) != 0) {
        return schedule_stock(self, CREATE_FUTURE, (PyObject *[]){NULL}, 0, NULL);
    }
    if (type == state->globals[GLOBAL_FUTURE].value) {
        return call_with_loop(self, type, PyTuple_New(0));
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
    /* asyncio passes all of them. To its own class the default ones make no difference, but take time. */
    if (name == Py_None && context == Py_None && type == state->globals[GLOBAL_TASK].value) {
        return call_with_loop(self, type, PyTuple_Pack(1, args[0]));
    }
    PyObject *all[] = {NULL, args[0], (PyObject *)self, name, context};
    return PyObject_Vectorcall(type, all + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, state->task_names);
}
