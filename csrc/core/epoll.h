/* The type Epoll, as other types see it. */
#ifndef PYEPOLL_EPOLL_H
#define PYEPOLL_EPOLL_H

#include "core/instance.h"

extern PyType_Spec epoll_spec;
extern PyMethodDef epoll_methods[];

/* Give a subclass of Epoll method objects and operators of its own; the first is the package's. 0, or -1 with
 * an exception. */
int epoll_prepare_subclass(ModuleState *module, PyObject *type);

/* The Instance of an Epoll. Borrowed. */
Instance *epoll_instance(PyObject *epoll);

#endif
