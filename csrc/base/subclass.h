/* Methods of a base class, given to a subclass as method objects of its own. The interpreter has a faster way
 * to call a C method, but only where the object's type is the one that the method object was made for: a
 * subclass that inherits the method pays about 30 ns more for each call. */
#ifndef PYEPOLL_SUBCLASS_H
#define PYEPOLL_SUBCLASS_H

#include "base/compat.h"

/* Give `type` a method object of its own for each of `methods`; class methods are left out. 0, or -1 with an
 * exception. */
int subclass_copy_methods(PyObject *type, PyMethodDef *methods);

#endif
