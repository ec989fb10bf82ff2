/* Versions of types: a type has another one after each change of it or of a base. */
#ifndef PYEPOLL_TYPE_VERSION_H
#define PYEPOLL_TYPE_VERSION_H

#include "base/compat.h"

/* The version of a type, which another thread may change; 0 for none. */
static inline unsigned
type_version(const PyTypeObject *type)
{
    return __atomic_load_n(&type->tp_version_tag, __ATOMIC_RELAXED);
}

#endif
