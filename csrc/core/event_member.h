/* The members of the package's enum Event, by mask. */
#ifndef PYEPOLL_EVENT_MEMBER_H
#define PYEPOLL_EVENT_MEMBER_H

#include "base/module_state.h"

#include <stdint.h>

/* The Event for a mask: taken from the module's dict, or made and stored there; an int where the package has
 * not set the class. A new reference; NULL with an exception. */
PyObject *event_member(ModuleState *module, uint32_t mask);

#endif
