/* What other types see of an Epoll. */
#ifndef PYEPOLL_EPOLL_H
#define PYEPOLL_EPOLL_H

#include "core/instance.h"

/* What an Epoll is a handle on. Borrowed. */
Instance *epoll_instance(PyObject *epoll);

#endif
