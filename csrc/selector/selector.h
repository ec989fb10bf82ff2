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

typedef struct {
    PyObject_HEAD
    PyObject *core;      /* `_selector`: an Epoll, or what stands in for one; NULL until it is set */
    Instance *instance;  /* the Epoll's, or NULL */
    bool direct;         /* the core is the package's own Epoll, whose methods need not be called */
    PyObject *keys;      /* `_fd_to_key`: a dict, fd number -> SelectorKey */
    ModuleState *module; /* with a reference to the module object: module.h */
    Guard guard;         /* of the first three: no Python code runs under it */
} Selector;

/* What a call is about to use, with references of its own: `_selector` may be replaced meanwhile. */
typedef struct {
    PyObject *object;
    Instance *instance;
    bool direct;
} Core;

/* 0, or -1 with an exception: `_selector` is not set. */
int core_take(Selector *self, Core *core);
void core_drop(Core *core);

/* What an Epoll's methods do. 0, or -1 with an exception. */
int core_register(const Core *core, int fd, uint32_t mask, PyObject *key);
int core_modify(const Core *core, int fd, uint32_t mask, PyObject *key);

/* Change the key alone, without a word to the kernel. */
int core_replace(const Core *core, int fd, PyObject *key);

/* An OSError is none: what the kernel refuses is forgotten all the same. */
int core_unregister(const Core *core, int fd);

/* The list of what select is to return. A new reference; `object` is the timeout as it was given. */
PyObject *core_wait(Selector *self, PyObject *object, int64_t timeout);

/* The mask that a registration asks for; 0 where it is not known. */
uint32_t core_mask(const Core *core, int fd);

/* Bring the dict up to what is registered now. `number` is the int object of `fd`; `otherwise` is the key to
 * keep where nothing is registered, or NULL. 0, or -1 with an exception. */
int core_settle(Selector *self, const Core *core, PyObject *number, int fd, PyObject *otherwise);

/* A change has failed that left `key` registered: forget it, unless something else is by now, and keep the
 * exception. */
void core_forget(Selector *self, const Core *core, PyObject *number, int fd, PyObject *key);

/* A change has failed, of which another call may have seen the beginning, and left `seen` (NULL: nothing) in
 * the dict: settle that, and keep the exception. */
void core_resettle(Selector *self, const Core *core, PyObject *number, int fd, const PyObject *seen);

/* Take a key out of the dict: a new reference; NULL where there is none, or with an exception. */
PyObject *core_pop(Selector *self, PyObject *number);

#endif
