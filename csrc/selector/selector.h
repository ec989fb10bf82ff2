/* A Selector: what selectors.EpollSelector does, on an Epoll whose data are the SelectorKeys.
 *
 * Each key is in two places: in the Epoll's registration, from where a wait hands it out, and in
 * `_fd_to_key`, which keeps it until it is unregistered, whatever became of the file. After each change of
 * its own a call brings the dict up to the registration as it is then, without a lock, as a key in the dict
 * may have Python code of its own; so, whoever was first to tell the kernel, the two agree once all calls
 * have returned. */
#ifndef PYEPOLL_SELECTOR_H
#define PYEPOLL_SELECTOR_H

#include "base/mutex.h"
#include "core/instance.h"

extern PyType_Spec selector_spec;
extern PyMethodDef selector_methods[];
extern PyMethodDef own_methods_functions[]; /* own_methods.c */

typedef struct {
    PyObject_HEAD
    PyObject *backend;   /* `_selector`: an Epoll, or what stands in for one; NULL until it is set */
    Instance *instance;  /* the Epoll's, or NULL */
    bool direct;         /* the backend is the package's own Epoll, whose methods need not be called */
    PyObject *keys;      /* `_fd_to_key`: a dict, fd fd_object -> SelectorKey */
    ModuleState *module; /* with a reference to the module object: module_state.h */
    Guard guard;         /* of the first three: no Python code runs under it */
} Selector;

/* What a call is about to use, with references of its own: `_selector` may be replaced meanwhile. */
typedef struct {
    PyObject *object;
    Instance *instance;
    bool direct;
} Backend;

/* 0, or -1 with an exception: `_selector` is not set. */
int backend_acquire(Selector *self, Backend *backend);
void backend_release(Backend *backend);

/* What an Epoll's methods do. 0, or -1 with an exception. */
int backend_register(const Backend *backend, int fd, uint32_t mask, PyObject *key);
int backend_modify(const Backend *backend, int fd, uint32_t mask, PyObject *key);

/* Change the key alone, without a word to the kernel. */
int backend_replace(const Backend *backend, int fd, PyObject *key);

/* An OSError is none: what the kernel refuses is forgotten all the same. */
int backend_unregister(const Backend *backend, int fd);

/* The list of what select is to return. A new reference; `object` is the timeout as it was given. */
PyObject *backend_wait(Selector *self, PyObject *object, int64_t timeout);

/* The mask that a registration asks for; 0 where it is not known. */
uint32_t backend_mask(const Backend *backend, int fd);

/* Bring the dict up to what is registered now. `fd_object` is the int object of `fd`; `otherwise` is the key to
 * keep where nothing is registered, or NULL. 0, or -1 with an exception. */
int backend_sync_keys(Selector *self, const Backend *backend, PyObject *fd_object, int fd, PyObject *otherwise);

/* A change has failed that left `key` registered: forget it, unless something else is by now, and keep the
 * exception. */
void backend_undo(Selector *self, const Backend *backend, PyObject *fd_object, int fd, PyObject *key);

/* A change has failed, of which another call may have seen the beginning, and left `seen` (NULL: nothing) in
 * the dict: settle that, and keep the exception. */
void backend_sync_after_failure(Selector *self, const Backend *backend, PyObject *fd_object, int fd,
                                const PyObject *seen);

/* Take a key out of the dict: a new reference; NULL where there is none, or with an exception. */
PyObject *backend_pop_key(Selector *self, PyObject *fd_object);

#endif
