/* An item of a WeakValueDictionary, set without its steps in Python. */
#ifndef PYEPOLL_WEAK_DICT_H
#define PYEPOLL_WEAK_DICT_H

#include "aio/fds_state.h"

/* dict[key] = value, for any mapping. 0, or -1 with an exception. */
int weak_set(const FdsState *state, PyObject *dict, PyObject *key, PyObject *value);

#endif
