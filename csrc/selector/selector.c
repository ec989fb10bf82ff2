/* The Selector type: parse, delegate, return. */
#include "selector/selector.h"

#include "base/convert.h"
#include "base/flags.h"
#include "core/epoll.h"
#include "selector/selector_docs.h"
#include "selector/selector_key.h"

#include <stddef.h>
#include <structmember.h>

static const uint32_t plain_bits = EPOLLIN | EPOLLOUT; /* the bits for `events` */
static const uint32_t modifier_bits = EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP;

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
    Py_VISIT(self->backend);
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
    Py_CLEAR(self->backend);
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
    Py_XDECREF(self->backend);
    Py_XDECREF(self->instance);
    Py_XDECREF(self->keys);
    type->tp_free(self);
    Py_DECREF(type);
    module_drop(module);
}

static PyObject *
selector_get_backend(Selector *self, void *Py_UNUSED(closure))
{
    Backend backend;
    if (backend_acquire(self, &backend) < 0) {
        return NULL;
    }
    Py_XDECREF(backend.instance);
    return backend.object;
}

static int
selector_set_backend(Selector *self, PyObject *object, void *Py_UNUSED(closure))
{
    const ModuleState *module = self->module;
    Backend now = {.object = Py_XNewRef(object)};
    if (object != NULL && PyObject_TypeCheck(object, module->types.epoll)) {
        now.instance = (Instance *)Py_NewRef(epoll_instance(object));
        now.direct = Py_IS_TYPE(object, module->package.epoll) || Py_IS_TYPE(object, module->types.epoll);
        now.instance->make_events = selector_key_make_events;
    }
    guard_lock(&self->guard);
    Backend before = {self->backend, self->instance, self->direct};
    self->backend = now.object;
    self->instance = now.instance;
    self->direct = now.direct;
    guard_unlock(&self->guard);
    backend_release(&before);
    return 0;
}

static void
raise_not_registered(PyObject *fileobj)
{
    PyErr_Format(PyExc_KeyError, "%R is not registered", fileobj);
}

/* The key for this fd: a new reference, or NULL with KeyError. */
static PyObject *
find_key(Selector *self, PyObject *fd_object, PyObject *fileobj)
{
    PyObject *key;
    int found = PyDict_GetItemRef(self->keys, fd_object, &key);
    if (found > 0 && !is_selector_key(self->module, key)) {
        Py_CLEAR(key);
        found = 0;
    }
    if (found == 0) {
        raise_not_registered(fileobj);
    }
    return key;
}

/* The events of selectors, and further epoll bits (`flags`), to a mask. `empty`: a mask without events is
 * accepted. */
static int
convert_events(PyObject *events, bool empty, PyObject *flags, uint32_t *mask)
{
    int overflow = 0;
    long asked = PyLong_Check(events) ? PyLong_AsLongAndOverflow(events, &overflow) : -1;
    bool valid = overflow == 0 && asked >= 0 && asked <= (EVENT_READ | EVENT_WRITE);
    uint32_t more = 0;
    if (valid && flags != NULL && convert_eventmask(flags, &more) < 0) {
        return -1;
    }
    if (!valid || (asked == 0 && (more & ~modifier_bits) == 0 && !empty)) {
        PyErr_Format(PyExc_ValueError, "Invalid events: %R", events);
        return -1;
    }
    if ((more & (EPOLLIN | EPOLLOUT)) != 0) {
        PyErr_Format(PyExc_ValueError, "flags %R has IN or OUT, which events is for", flags);
        return -1;
    }
    *mask = ((asked & EVENT_READ) != 0 ? EPOLLIN : 0u) | ((asked & EVENT_WRITE) != 0 ? EPOLLOUT : 0u) | more;
    return 0;
}

/* The backend has refused: an OSError, except for FileExistsError, for which selectors raise KeyError. */
static void
translate_exists(PyObject *fileobj, int fd)
{
    if (PyErr_ExceptionMatches(PyExc_FileExistsError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_KeyError, "%R (FD %d) is already registered", fileobj, fd);
    }
}

/* Convert `fd_object`, unless the fd is known. 0, or -1 with an exception: it does not fit a C int. */
static inline int
ensure_fd(PyObject *fd_object, int *fd)
{
    return *fd >= 0 ? 0 : convert_int(fd_object, fd);
}

/* Register a key. 0, or -1 with an exception. */
static int
add_key(Selector *self, PyObject *key, int fd, uint32_t mask)
{
    PyObject *fd_object = PyTuple_GET_ITEM(key, KEY_FD);
    Backend backend;
    if (ensure_fd(fd_object, &fd) < 0 || backend_acquire(self, &backend) < 0) {
        return -1;
    }
    int status = backend_register(&backend, fd, mask, key);
    if (status < 0) {
        translate_exists(PyTuple_GET_ITEM(key, KEY_FILEOBJ), fd);
        backend_sync_after_failure(self, &backend, fd_object, fd, key);
    }
    else if (backend_sync_keys(self, &backend, fd_object, fd, backend.direct ? NULL : key) < 0) {
        status = -1;
        backend_undo(self, &backend, fd_object, fd, key);
    }
    backend_release(&backend);
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
        convert_events(given[1], false, given[3], &mask) < 0) {
        return NULL;
    }
    int fd;
    PyObject *fd_object = fileobj_fd(given[0], &fd);
    if (fd_object == NULL) {
        return NULL;
    }
    if (!PyLong_Check(given[0])) {
        atomic_store_explicit(&self->has_objects, true, memory_order_relaxed);
    }
    PyObject *data = given[2] != NULL ? given[2] : Py_None;
    PyObject *key = selector_key_new(self->module, given[0], fd_object, given[1], data);
    Py_DECREF(fd_object);
    if (key != NULL && add_key(self, key, fd, mask) < 0) {
        Py_CLEAR(key);
    }
    return key;
}

/* Replace `old` by `key`, for the caller's `fileobj`; keep `old` where the two are the same. The key that is
 * registered now, a new reference; NULL with an exception, and then neither is registered. `keep` leaves the
 * other epoll bits as they are. */
static PyObject *
change_key(Selector *self, PyObject *fileobj, PyObject *old, PyObject *key, int fd, uint32_t mask, bool keep)
{
    Backend backend;
    if (ensure_fd(PyTuple_GET_ITEM(key, KEY_FD), &fd) < 0 || backend_acquire(self, &backend) < 0) {
        return NULL;
    }
    uint32_t more = backend_mask(&backend, fd) & ~plain_bits;
    mask |= keep ? more : 0;
    bool same_mask = selector_key_asked(self->module, old) == selector_key_asked(self->module, key) &&
                     more == (mask & ~plain_bits);
    /* modify reports an edge again and arms a disarmed one-shot. */
    bool arms = (mask & (EPOLLET | EPOLLONESHOT)) != 0;
    if (same_mask && !arms && PyTuple_GET_ITEM(old, KEY_DATA) == PyTuple_GET_ITEM(key, KEY_DATA)) {
        backend_release(&backend);
        return Py_NewRef(old);
    }
    Change change = {&backend, fileobj, old, Py_NewRef(key), fd, mask};
    PyObject *otherwise = backend.direct ? NULL : key;
    int status;
    if (same_mask && !arms) {
        status = change_data(self, &change, &otherwise);
    }
    else {
        status = backend_modify(&backend, fd, mask, key);
        if (status < 0) {
            status = change_retry(self, &change);
        }
    }
    PyObject *fd_object = PyTuple_GET_ITEM(key, KEY_FD);
    PyObject *left = status == 0 ? change.key : old;
    if (status == 0) {
        status = backend_sync_keys(self, &backend, fd_object, fd, otherwise != NULL ? change.key : NULL);
    }
    if (status < 0) {
        backend_undo(self, &backend, fd_object, fd, left);
        Py_CLEAR(change.key);
    }
    backend_release(&backend);
    return change.key;
}

/* The fd under which a file object is registered; NULL with an exception. */
static inline PyObject *
registered_fd_of(Selector *self, PyObject *fileobj, int *fd)
{
    return PyLong_Check(fileobj) ? fileobj_fd(fileobj, fd) : object_fd(self, fileobj, fd);
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
    if (convert_events(given[1], true, keep ? NULL : given[3], &mask) < 0) {
        return NULL;
    }
    int fd;
    PyObject *fd_object = registered_fd_of(self, given[0], &fd);
    PyObject *old = fd_object != NULL ? find_key(self, fd_object, given[0]) : NULL;
    PyObject *data = given[2] != NULL ? given[2] : Py_None;
    PyObject *key = old != NULL ? selector_key_new(self->module, PyTuple_GET_ITEM(old, KEY_FILEOBJ),
                                                   fd_object, given[1], data)
                                : NULL;
    PyObject *now = key != NULL ? change_key(self, given[0], old, key, fd, mask, keep) : NULL;
    Py_XDECREF(key);
    Py_XDECREF(old);
    Py_XDECREF(fd_object);
    return now;
}

/* Unregister an fd; its key, a new reference. */
static PyObject *
remove_key(Selector *self, PyObject *fd_object, int fd, PyObject *fileobj)
{
    Backend backend;
    if (backend_acquire(self, &backend) < 0) {
        return NULL;
    }
    PyObject *key = backend_pop_key(self, fd_object);
    if (key == NULL && !PyErr_Occurred()) {
        raise_not_registered(fileobj);
    }
    else if (key != NULL && (ensure_fd(fd_object, &fd) < 0 || backend_unregister(&backend, fd) < 0 ||
                             backend_sync_keys(self, &backend, fd_object, fd, NULL) < 0)) {
        backend_sync_after_failure(self, &backend, fd_object, fd, NULL);
        Py_CLEAR(key);
    }
    backend_release(&backend);
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
    PyObject *fd_object = registered_fd_of(self, given[0], &fd);
    PyObject *key = fd_object != NULL ? remove_key(self, fd_object, fd, given[0]) : NULL;
    Py_XDECREF(fd_object);
    return key;
}

static PyObject *
selector_select(Selector *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {"select", 0, 1, {"timeout"}};
    PyObject *given[ARGUMENTS];
    int64_t timeout = NO_TIMEOUT;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        (given[0] != NULL && convert_selector_timeout(given[0], &timeout) < 0)) {
        return NULL;
    }
    return backend_wait(self, given[0], timeout);
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
    {"_selector", (getter)selector_get_backend, (setter)selector_set_backend, "The Epoll underneath.", NULL},
    {NULL,        NULL,                         NULL,                         NULL,                    NULL},
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
