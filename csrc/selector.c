/* The Selector type: parse, delegate, return. */
#include "selector.h"

#include "convert.h"
#include "epoll.h"
#include "key.h"
#include "selector_docs.h"

#include <stddef.h>
#include <structmember.h>
#include <sys/epoll.h>

static const uint32_t plain_bits = EPOLLIN | EPOLLOUT; /* what `events` stands for */

static PyObject *
selector_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    /* The arguments are those of a subclass's __init__. */
    ModuleState *module = module_state_of(type);
    PyObject *keys = module != NULL ? PyDict_New() : NULL;
    Selector *self = keys != NULL ? (Selector *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        Py_XDECREF(keys);
        return NULL;
    }
    /* From here on gc.get_objects() finds it: it is complete before any other code runs. */
    self->module = module_hold(module);
    self->keys = keys;
    return (PyObject *)self;
}

static int
selector_traverse(Selector *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->instance);
    Py_VISIT(self->keys);
    if (self->module != NULL) {
        Py_VISIT(self->module->object);
    }
    return 0;
}

static int
selector_clear(Selector *self)
{
    Py_CLEAR(self->core);
    self->direct = false;
    Py_CLEAR(self->instance);
    PyDict_Clear(self->keys);
    return 0;
}

static void
selector_dealloc(Selector *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ModuleState *module = self->module;
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->core);
    Py_XDECREF(self->instance);
    Py_XDECREF(self->keys);
    type->tp_free(self);
    Py_DECREF(type);
    module_drop(module);
}

static PyObject *
selector_get_core(Selector *self, void *Py_UNUSED(closure))
{
    Core core;
    if (core_take(self, &core) < 0) {
        return NULL;
    }
    Py_XDECREF(core.instance);
    return core.object;
}

static int
selector_set_core(Selector *self, PyObject *object, void *Py_UNUSED(closure))
{
    const ModuleState *module = self->module;
    Core now = {.object = Py_XNewRef(object)};
    if (object != NULL && PyObject_TypeCheck(object, module->epoll_type)) {
        now.instance = (Instance *)Py_NewRef(epoll_instance(object));
        now.direct = Py_IS_TYPE(object, module->plain_epoll) || Py_IS_TYPE(object, module->epoll_type);
        now.instance->selects = true;
    }
    guard_lock(&self->guard);
    Core before = {self->core, self->instance, self->direct};
    self->core = now.object;
    self->instance = now.instance;
    self->direct = now.direct;
    guard_unlock(&self->guard);
    core_drop(&before);
    return 0;
}

static void
refuse_unknown(PyObject *fileobj)
{
    PyErr_Format(PyExc_KeyError, "%R is not registered", fileobj);
}

/* The key of the file object that has this number: a new reference, or NULL with KeyError. */
static PyObject *
find(Selector *self, PyObject *number, PyObject *fileobj)
{
    PyObject *key;
    int found = PyDict_GetItemRef(self->keys, number, &key);
    if (found > 0 && !key_is(self->module, key)) {
        Py_CLEAR(key);
        found = 0;
    }
    if (found == 0) {
        refuse_unknown(fileobj);
    }
    return key;
}

/* The events of selectors and more bits of epoll's to a mask; `events` may not be below `least`. */
static int
convert_events(PyObject *events, long least, PyObject *flags, uint32_t *mask)
{
    int overflow = 0;
    long asked = PyLong_Check(events) ? PyLong_AsLongAndOverflow(events, &overflow) : least - 1;
    if (overflow != 0 || asked < least || asked > (EVENT_READ | EVENT_WRITE)) {
        PyErr_Format(PyExc_ValueError, "Invalid events: %R", events);
        return -1;
    }
    uint32_t more = 0;
    if (flags != NULL && convert_eventmask(flags, &more) < 0) {
        return -1;
    }
    if ((more & (EPOLLIN | EPOLLOUT)) != 0) {
        PyErr_Format(PyExc_ValueError, "flags %R has IN or OUT, which events is for", flags);
        return -1;
    }
    *mask = ((asked & EVENT_READ) != 0 ? EPOLLIN : 0u) | ((asked & EVENT_WRITE) != 0 ? EPOLLOUT : 0u) | more;
    return 0;
}

/* The core has refused: an OSError says what, but for one that selectors have a KeyError for. */
static void
say_registered(PyObject *fileobj, int fd)
{
    if (PyErr_ExceptionMatches(PyExc_FileExistsError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_KeyError, "%R (FD %d) is already registered", fileobj, fd);
    }
}

/* The fd is known, or `number` is to be converted. 0, or -1 with an exception: it is no C int. */
static inline int
ensure_fd(PyObject *number, int *fd)
{
    return *fd >= 0 ? 0 : convert_int(number, fd);
}

/* Register a key under its number. 0, or -1 with an exception. */
static int
add_key(Selector *self, PyObject *key, int fd, uint32_t mask)
{
    PyObject *number = PyTuple_GET_ITEM(key, KEY_FD);
    Core core;
    if (ensure_fd(number, &fd) < 0 || core_take(self, &core) < 0) {
        return -1;
    }
    int status = core_register(&core, fd, mask, key);
    if (status < 0) {
        say_registered(PyTuple_GET_ITEM(key, KEY_FILEOBJ), fd);
        core_resettle(self, &core, number, fd, key);
    }
    else if (core_settle(self, &core, number, fd, core.direct ? NULL : key) < 0) {
        status = -1;
        core_forget(self, &core, number, fd, key);
    }
    core_drop(&core);
    return status;
}

static PyObject *
selector_register(Selector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "register", 2, 4, {"fileobj", "events", "data", "flags"}
    };
    PyObject *given[ARGUMENTS];
    uint32_t mask;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        convert_events(given[1], 1, given[3], &mask) < 0) {
        return NULL;
    }
    int fd;
    PyObject *number = key_open_number(given[0], &fd);
    if (number == NULL) {
        return NULL;
    }
    PyObject *data = given[2] != NULL ? given[2] : Py_None;
    PyObject *key = key_new(self->module, given[0], number, given[1], data);
    Py_DECREF(number);
    if (key != NULL && add_key(self, key, fd, mask) < 0) {
        Py_CLEAR(key);
    }
    return key;
}

/* Put `key` in the place of `old`; where they are the same, leave that. What is registered now, a new
 * reference; NULL with an exception, and then neither is. `keep` leaves the bits of epoll's as they are. */
static PyObject *
change_key(Selector *self, PyObject *old, PyObject *key, int fd, uint32_t mask, bool keep)
{
    PyObject *number = PyTuple_GET_ITEM(key, KEY_FD);
    int status = 0;
    Core core;
    if (ensure_fd(number, &fd) < 0 || core_take(self, &core) < 0) {
        return NULL;
    }
    uint32_t more = core_mask(&core, fd) & ~plain_bits;
    mask |= keep ? more : 0;
    /* Told again, the kernel reports an edge again, and arms a spent one-shot. */
    bool told = key_asked(self->module, old) != key_asked(self->module, key) ||
                more != (mask & ~plain_bits) || (mask & (EPOLLET | EPOLLONESHOT)) != 0;
    if (told) {
        status = core_modify(&core, fd, mask, key);
    }
    else if (PyTuple_GET_ITEM(old, KEY_DATA) == PyTuple_GET_ITEM(key, KEY_DATA)) {
        key = old;
    }
    else {
        status = core_replace(&core, fd, key);
    }
    PyObject *left = status == 0 ? key : old;
    /* Of what the core has dropped, the key alone can be changed, as in selectors. */
    if (status == 0 && key != old) {
        status = core_settle(self, &core, number, fd, told && core.direct ? NULL : key);
    }
    if (status < 0) {
        core_forget(self, &core, number, fd, left);
    }
    core_drop(&core);
    return status == 0 ? Py_NewRef(key) : NULL;
}

static PyObject *
selector_modify(Selector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "modify", 2, 4, {"fileobj", "events", "data", "flags"}
    };
    PyObject *given[ARGUMENTS];
    uint32_t mask;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    bool keep = given[3] == NULL || given[3] == Py_None;
    if (convert_events(given[1], 0, keep ? NULL : given[3], &mask) < 0) {
        return NULL;
    }
    int fd;
    PyObject *number = key_number_of(self->module, self->keys, given[0], &fd);
    PyObject *old = number != NULL ? find(self, number, given[0]) : NULL;
    PyObject *data = given[2] != NULL ? given[2] : Py_None;
    PyObject *key = old != NULL
                        ? key_new(self->module, PyTuple_GET_ITEM(old, KEY_FILEOBJ), number, given[1], data)
                        : NULL;
    PyObject *now = key != NULL ? change_key(self, old, key, fd, mask, keep) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(old);
    Py_XDECREF(number);
    return now;
}

/* Unregister what has this number; its key, a new reference. */
static PyObject *
remove_key(Selector *self, PyObject *number, int fd, PyObject *fileobj)
{
    Core core;
    if (core_take(self, &core) < 0) {
        return NULL;
    }
    PyObject *key = core_pop(self, number);
    if (key == NULL && !PyErr_Occurred()) {
        refuse_unknown(fileobj);
    }
    else if (key != NULL && (ensure_fd(number, &fd) < 0 || core_unregister(&core, fd) < 0 ||
                             core_settle(self, &core, number, fd, NULL) < 0)) {
        core_resettle(self, &core, number, fd, NULL);
        Py_CLEAR(key);
    }
    core_drop(&core);
    return key;
}

static PyObject *
selector_unregister(Selector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"unregister", 1, 1, {"fileobj"}};
    PyObject *given[ARGUMENTS];
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    int fd;
    PyObject *number = key_number_of(self->module, self->keys, given[0], &fd);
    PyObject *key = number != NULL ? remove_key(self, number, fd, given[0]) : NULL;
    Py_XDECREF(number);
    return key;
}

static PyObject *
selector_select(Selector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"select", 0, 1, {"timeout"}};
    PyObject *given[ARGUMENTS];
    int64_t timeout = FOREVER;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        (given[0] != NULL && convert_span(given[0], &timeout) < 0)) {
        return NULL;
    }
    return core_wait(self, given[0], timeout);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

PyMethodDef selector_methods[] = {
    {"register", FAST(selector_register), selector_register_doc},
    {"unregister", FAST(selector_unregister), selector_unregister_doc},
    {"modify", FAST(selector_modify), selector_modify_doc},
    {"select", FAST(selector_select), selector_select_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef selector_getset[] = {
    {"_selector", (getter)selector_get_core, (setter)selector_set_core, "The Epoll underneath.", NULL},
    {NULL,        NULL,                      NULL,                      NULL,                    NULL},
};

static PyMemberDef selector_members[] = {
    {"_fd_to_key", T_OBJECT_EX, offsetof(Selector, keys), READONLY, "The keys by fd number."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot selector_slots[] = {
    {Py_tp_doc,      (void *)selector_doc},
    {Py_tp_new,      selector_new        },
    {Py_tp_dealloc,  selector_dealloc    },
    {Py_tp_traverse, selector_traverse   },
    {Py_tp_clear,    selector_clear      },
    {Py_tp_methods,  selector_methods    },
    {Py_tp_getset,   selector_getset     },
    {Py_tp_members,  selector_members    },
    {0,              NULL                },
};

PyType_Spec selector_spec = {
    .name = "pyepoll._epoll.Selector",
    .basicsize = sizeof(Selector),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = selector_slots,
};
