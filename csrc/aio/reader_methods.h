/* The methods of a loop that watch files. */
#ifndef PYEPOLL_READER_METHODS_H
#define PYEPOLL_READER_METHODS_H

#include "base/compat.h"

/* The public ones, and those with an underscore that asyncio's transports call. */
extern PyMethodDef reader_methods[];

#endif
