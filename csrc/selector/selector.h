/* A Selector: the methods of selectors.EpollSelector, on an Epoll with SelectorKeys as data.
 *
 * Each key is in two places: in the Epoll's registration, from where a wait hands it out, and in
 * `_fd_to_key`, which keeps it until it is unregistered, even if the file has been closed. After each change,
 * a call sets the dict to the present registration. It takes no lock for that, because a key in the dict may
 * run Python code. The two agree once all calls have returned, in whatever order the calls reached the
 * kernel. */
#ifndef PYEPOLL_SELECTOR_H
#define PYEPOLL_SELECTOR_H

#include "base/mutex.h"
#include "core/instance.h"

extern PyType_Spec selector_spec;
extern PyMethodDef selector_methods[];
extern PyMethodDef own_methods_functions[]; /* own_methods.c */

typedef struct {
    PyObject_HEAD
    PyObject *backend;       /* `_selector`: an Epoll, or a replacement for one; NULL until it is set */
    Instance *instance;      /* the Epoll's, or NULL */
    bool direct;             /* the backend is the package's own Epoll: its methods need not be called */
    PyObject *keys;          /* `_fd_to_key`: a dict, fd -> SelectorKey */
    atomic_bool has_objects; /* a file object was registered, not only ints: set by register */
    ModuleState *module;     /* with a reference to the module object: module_state.h */
    Guard guard;             /* of the first three: no Python code runs under it */
} Selector;

/* The backend that a call uses, with references of its own: `_selector` may be replaced meanwhile. */
typedef struct {
    PyObject *object;
    Instance *instance;
    bool direct;
} Backend;

/* 0, or -1 with an exception: `_selector` is not set. */
int backend_acquire(Selector *self, Backend *backend);
void backend_release(Backend *backend);

/* As the methods of Epoll. 0, or -1 with an exception. */
int backend_register(const Backend *backend, int fd, uint32_t mask, PyObject *key);
int backend_modify(const Backend *backend, int fd, uint32_t mask, PyObject *key);

/* Change only the key, without a system call. */
int backend_replace(const Backend *backend, int fd, PyObject *key);

/* Ignores OSError: the registration is removed even if the kernel refuses. 0, or -1 with another
 * exception. */
int backend_unregister(const Backend *backend, int fd);

/* The list that select returns. A new reference; `object` is the timeout as the caller gave it. */
PyObject *backend_wait(Selector *self, PyObject *object, int64_t timeout);

/* The mask that a registration asks for; 0 where it is not known. */
uint32_t backend_mask(const Backend *backend, int fd);

/* Set the dict to the present registration. `fd_object` is the int object of `fd`; `otherwise` is the key to
 * keep where nothing is registered, or NULL. 0, or -1 with an exception. */
int backend_sync_keys(Selector *self, const Backend *backend, PyObject *fd_object, int fd,
                      PyObject *otherwise);

/* After a failed change that left `key` registered: unregister it, unless it has been replaced meanwhile, and
 * keep the exception. */
void backend_undo(Selector *self, const Backend *backend, PyObject *fd_object, int fd, PyObject *key);

/* After a failed change that left `seen` (NULL: nothing) in the dict, where another call may have seen the
 * beginning of the change: synchronize the dict, and keep the exception. */
void backend_sync_after_failure(Selector *self, const Backend *backend, PyObject *fd_object, int fd,
                                const PyObject *seen);

/* Take a key out of the dict: a new reference; NULL where there is none, or with an exception. */
PyObject *backend_pop_key(Selector *self, PyObject *fd_object);

/* In reused_fd.c: modify and unregister, where an fd may have been closed and reused.
 *
 * A change of the key `old` to `key`, which is to be registered with `mask`. */
typedef struct {
    const Backend *backend;
    PyObject *fileobj; /* as the caller gave it */
    PyObject *old;
    PyObject *key; /* owned */
    int fd;
    uint32_t mask;
} Change;

/* After a backend_modify() that failed: where the fd refers to another file than the registered one, and to
 * that of the key's file object or of the caller's, register this file. If only the caller's has this fd, it
 * becomes the file object of the key. 0, or -1 with an exception, and then neither key is registered. */
int change_retry(Selector *self, Change *change);

/* Change the data alone: one system call, which finds out whether the fd refers to another file. As in
 * selectors, the key of a closed fd is changed, although nothing is registered: `*otherwise` is set to the
 * key to keep in the dict. 0, or -1 with an exception. */
int change_data(Selector *self, Change *change, PyObject **otherwise);

/* The fd under which an object with fileno() is registered, as fileobj_fd_or_registered(). An object that was
 * registered when fileno() returned another fd does not stand for the key of the fd that it returns now. */
PyObject *object_fd(Selector *self, PyObject *fileobj, int *fd);

#endif
