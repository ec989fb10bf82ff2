/* The functions of the raw layer, for the table of the module. */
#ifndef PYEPOLL_RAW_H
#define PYEPOLL_RAW_H

#include "base/compat.h"

extern PyMethodDef raw_methods[];  /* raw.c */
extern PyMethodDef kcmp_methods[]; /* kcmp.c */

#endif
