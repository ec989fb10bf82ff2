/* Settings for all Epolls. */
#ifndef PYEPOLL_SETTINGS_H
#define PYEPOLL_SETTINGS_H

#include "base/compat.h"

extern PyMethodDef settings_functions[];

#endif
