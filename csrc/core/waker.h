/* The type Waker. */
#ifndef PYEPOLL_WAKER_H
#define PYEPOLL_WAKER_H

#include "base/compat.h"

extern PyType_Spec waker_spec;

#endif
