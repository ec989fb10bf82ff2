/* The type Child. */
#ifndef PYEPOLL_CHILD_H
#define PYEPOLL_CHILD_H

#include "base/compat.h"

extern PyType_Spec child_spec;

#endif
