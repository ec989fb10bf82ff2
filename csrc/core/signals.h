/* The type Signals. */
#ifndef PYEPOLL_SIGNALS_H
#define PYEPOLL_SIGNALS_H

#include "base/compat.h"

extern PyType_Spec signals_spec;

#endif
