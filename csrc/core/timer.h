/* The type Timer. */
#ifndef PYEPOLL_TIMER_H
#define PYEPOLL_TIMER_H

#include "base/compat.h"

extern PyType_Spec timer_spec;

#endif
