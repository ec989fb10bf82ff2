/* selectors.SelectorKey, the data that a Selector registers: (fileobj, fd, events, data). */
#ifndef PYEPOLL_SELECTOR_KEY_H
#define PYEPOLL_SELECTOR_KEY_H

#include "base/module_state.h"

#include <stdbool.h>
#include <stdint.h>

extern PyMethodDef selector_key_functions[];

/* The events of selectors. */
enum { EVENT_READ = 1, EVENT_WRITE = 2 };

enum { KEY_FILEOBJ, KEY_FD, KEY_EVENTS, KEY_DATA, KEY_SIZE };

static inline bool
is_selector_key(const ModuleState *module, PyObject *object)
{
    return Py_IS_TYPE(object, module->package.selector_key) && PyTuple_GET_SIZE(object) == KEY_SIZE;
}

/* A new reference. */
PyObject *selector_key_new(const ModuleState *module, PyObject *fileobj, PyObject *fd, PyObject *events,
                           PyObject *data);

/* EVENT_READ | EVENT_WRITE, as in `key`. NO_KEY if it is not a key with such events. */
enum { NO_KEY = -1 };
int selector_key_asked(const ModuleState *module, PyObject *key);

/* An EventsFactory (core/instance.h). For a key: EVENT_READ | EVENT_WRITE as an int, only what the key asks
 * for; for other data, the Event. */
PyObject *selector_key_make_events(ModuleState *module, uint32_t events, PyObject *data);

/* The fd of a file object, as an exact int; NULL with ValueError where it has none. `*fd` is its
 * value, or -1 where that is unknown or does not fit a C int. A new reference. */
PyObject *fileobj_fd(PyObject *fileobj, int *fd);

/* The same, but for a closed file object its fd is looked up in `keys`, a dict of keys by fd. */
PyObject *fileobj_fd_or_registered(const ModuleState *module, PyObject *keys, PyObject *fileobj, int *fd);

/* The fd under which a file object, the very object, is in `keys`, an exact int: a new reference, or NULL; an
 * exception is set only where there is no memory. */
PyObject *registered_fd(const ModuleState *module, PyObject *keys, PyObject *fileobj);

#endif
