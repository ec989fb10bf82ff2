#include "aio/override.h"

bool
override_is_asyncios(PyObject *object)
{
    if (!PyFunction_Check(object)) {
        return false;
    }
    PyObject *name = PyDict_GetItemString(PyFunction_GET_GLOBALS(object), "__name__");
    const char *text = name != NULL && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
    return text != NULL && strncmp(text, "asyncio.", 8) == 0;
}

int
override_learn(LoopState *state, PyTypeObject *ours, PyTypeObject *stock)
{
    for (int i = 0; i < LOOP_METHODS; i++) {
        PyObject *theirs = PyObject_GetAttr((PyObject *)stock, state->method_names[i]);
        PyObject *own = theirs != NULL ? PyObject_GetAttr((PyObject *)ours, state->method_names[i]) : NULL;
        if (own == NULL) {
            Py_XDECREF(theirs);
            return -1;
        }
        bool known = override_is_asyncios(theirs);
        Py_XSETREF(state->stock_methods[i], known ? Py_NewRef(theirs) : NULL);
        Py_XSETREF(state->methods[i], known ? Py_NewRef(own) : NULL);
        Py_DECREF(theirs);
        Py_DECREF(own);
    }
    Py_XSETREF(state->stock_loop, (PyTypeObject *)Py_NewRef(stock));
    return 0;
}

static bool
attribute_is(PyObject *object, PyObject *name, const PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(object, name);
    if (value == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    return value != NULL && value == expected;
}

/* Whether the loop's own dict has a name; true where that cannot be found out. */
static bool
is_in_dict(PyObject *dict, PyObject *name)
{
    int found = dict != NULL ? PyDict_Contains(dict, name) : -1;
    if (found < 0) {
        PyErr_Clear();
    }
    return found != 0;
}

/* The HOOKs and STOCK_HOOKs that are replaced: in the loop's type or dict, and in asyncio's class. */
static uint64_t
find_overridden(EventLoop *self, const LoopState *state)
{
    PyObject *type = (PyObject *)Py_TYPE(self);
    /* As long as there is no dict, the interpreter finds the loop's methods faster. */
    bool has_dict = self->exposed || self->has_names;
    PyObject *dict = has_dict ? PyObject_GenericGetDict((PyObject *)self, NULL) : NULL;
    uint64_t overridden = 0;
    if (dict == NULL) {
        PyErr_Clear();
    }
    for (int i = 0; i < LOOP_METHODS; i++) {
        PyObject *name = state->method_names[i];
        bool same = attribute_is(type, name, state->methods[i]) && !(has_dict && is_in_dict(dict, name));
        overridden |= same ? 0 : HOOK(i);
        if (i < STOCK_METHODS &&
            !attribute_is((PyObject *)state->stock_loop, name, state->stock_methods[i])) {
            overridden |= STOCK_HOOK(i);
        }
    }
    Py_XDECREF(dict);
    return overridden;
}

uint64_t
override_check(EventLoop *self)
{
    const LoopState *state = &self->state->loop;
    if (state->stock_loop == NULL || state->handle_type == NULL) {
        return UINT64_MAX;
    }
    unsigned sets = atomic_load(&self->sets), version = type_version(Py_TYPE(self));
    PyObject *error = PyErr_GetRaisedException();
    uint64_t overridden = find_overridden(self, state);
    PyErr_SetRaisedException(error);
    /* Keep it, unless another thread or a metaclass has set an attribute or patched a class meanwhile. */
    Py_BEGIN_CRITICAL_SECTION(self);
    if (atomic_load(&self->sets) == sets && type_version(Py_TYPE(self)) == version && !self->exposed) {
        atomic_store_explicit(&self->overridden, overridden, memory_order_relaxed);
        atomic_store(&self->checked, version);
    }
    Py_END_CRITICAL_SECTION();
    return overridden;
}

bool
override_check_run(LoopState *state)
{
    bool stock = attribute_is((PyObject *)state->stock_handle, state->names[LOOP_RUN], state->handle_run);
    state->run_version = stock ? type_version(state->stock_handle) : 0;
    return stock;
}

/* Whether a type has select() in C: a replacement is not. */
static bool
type_has_own_select(LoopState *state, PyTypeObject *type)
{
    unsigned version = type_version(type);
    if (version != 0 && version == state->select_version) {
        return true;
    }
    PyObject *method = PyObject_GetAttr((PyObject *)type, state->names[LOOP_SELECT]);
    bool own = method != NULL && Py_IS_TYPE(method, &PyMethodDescr_Type);
    Py_XDECREF(method);
    PyErr_Clear();
    state->select_version = own ? type_version(type) : 0;
    return own;
}

bool
override_has_own_select(LoopState *state, PyObject *selector)
{
    if (!type_has_own_select(state, Py_TYPE(selector))) {
        return false;
    }
    PyObject *dict = PyObject_GenericGetDict(selector, NULL);
    if (dict == NULL) {
        PyErr_Clear();
        return false;
    }
    int found = PyDict_GET_SIZE(dict) > 0 ? PyDict_Contains(dict, state->names[LOOP_SELECT]) : 0;
    Py_DECREF(dict);
    if (found < 0) {
        PyErr_Clear();
    }
    return found == 0;
}
