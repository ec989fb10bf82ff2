/* selectors.SelectorKey, the data that a Selector registers: (fileobj, fd, events, data). */
#ifndef PYEPOLL_KEY_H
#define PYEPOLL_KEY_H

#include "module.h"

#include <stdbool.h>
#include <stdint.h>

/* The events that selectors know. */
enum { EVENT_READ = 1, EVENT_WRITE = 2 };

enum { KEY_FILEOBJ, KEY_FD, KEY_EVENTS, KEY_DATA, KEY_SIZE };

static inline bool
key_is(const ModuleState *module, PyObject *object)
{
    return Py_IS_TYPE(object, module->key_type) && PyTuple_GET_SIZE(object) == KEY_SIZE;
}

/* A new reference. */
PyObject *key_new(const ModuleState *module, PyObject *fileobj, PyObject *fd, PyObject *events,
                  PyObject *data);

/* EVENT_READ | EVENT_WRITE, as `key` asked for them. NO_KEY where it is no key with such events. */
enum { NO_KEY = -1 };
int key_asked(const ModuleState *module, PyObject *key);

/* What an event of epoll's means to who registered `key`: EVENT_READ | EVENT_WRITE, of which only what was
 * asked for. NO_KEY as above. */
int key_events(const ModuleState *module, PyObject *key, uint32_t events);

/* The fd of a file object, as an int of no subclass: NULL with ValueError where it has none. `*fd` is its
 * value, or -1 where that is not known or no C int. */
PyObject *key_open_number(PyObject *fileobj, int *fd);

/* The same, but one that is closed by now is looked for among `keys`, a dict of keys by fd number. */
PyObject *key_number_of(const ModuleState *module, PyObject *keys, PyObject *fileobj, int *fd);

#endif
