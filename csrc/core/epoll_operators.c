/* The operators of the package's subclass of Epoll, with docstrings of their own: CPython's text for a slot
 * is the same for every type, "Implement iter(self)." */
#include "base/subclass.h"
#include "core/epoll.h"

#include <pthread.h>

PyDoc_STRVAR(iter_doc,
"__iter__($self, /)\n--\n\n"
"Wait for events and hand them out indefinitely as (data, events): for data, events in ep.\n\n"
"Each event is checked when it is handed out, as in wait(). The loop has no timeout; it ends when the epoll\n"
"is closed, by any thread. If the iterator is dropped, edges and one-shots that it fetched and did not hand\n"
"out are armed again.\n\n"
"Raises ValueError if the object is closed; during the loop, exceptions of signal handlers, and OSError if\n"
"epoll_wait fails.");

PyDoc_STRVAR(len_doc,
"__len__($self, /)\n--\n\n"
"Return how many fds are registered.");

PyDoc_STRVAR(contains_doc,
"__contains__($self, fd, /)\n--\n\n"
"Return whether fd, an int or an object with fileno(), is registered.\n\n"
"Raises ValueError for a closed object or a negative fd; OverflowError for an fd that does not fit 32 bits;\n"
"TypeError for a wrong type.");

PyDoc_STRVAR(bool_doc,
"__bool__($self, /)\n--\n\n"
"Return True, as select.epoll does: an epoll that watches nothing, or is closed, is true too.");

static const struct {
    const char *name;
    const char *doc;
} operators[] = {
    {"__iter__",     iter_doc    },
    {"__len__",      len_doc     },
    {"__contains__", contains_doc},
    {"__bool__",     bool_doc    },
};

enum { OPERATORS = sizeof(operators) / sizeof(operators[0]) };

/* CPython's description of operator `i` with our text: the same for all interpreters, and static, so that it
 * outlives every descriptor that points to it. After a second Py_Initialize() CPython's names are others. */
static struct wrapperbase *
describe(int i, const struct wrapperbase *builtin)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct wrapperbase described[OPERATORS];
    pthread_mutex_lock(&lock);
    if (described[i].name_strobj != builtin->name_strobj) {
        described[i] = *builtin;
        described[i].doc = operators[i].doc;
    }
    pthread_mutex_unlock(&lock);
    return &described[i];
}

/* Give a subclass the operators with our docstrings. A method in C would be simpler, but the interpreter
 * would call it instead of the slot; a descriptor of the slot leaves the slot alone. */
static int
copy_operators(PyObject *type)
{
    int status = 0;
    for (int i = 0; status == 0 && i < OPERATORS; i++) {
        PyObject *found = PyObject_GetAttrString(type, operators[i].name);
        if (found == NULL) {
            return -1;
        }
        if (Py_IS_TYPE(found, &PyWrapperDescr_Type)) {
            const PyWrapperDescrObject *inherited = (PyWrapperDescrObject *)found;
            PyObject *own = PyDescr_NewWrapper((PyTypeObject *)type, describe(i, inherited->d_base),
                                               inherited->d_wrapped);
            status = own != NULL ? PyObject_SetAttrString(type, operators[i].name, own) : -1;
            Py_XDECREF(own);
        }
        Py_DECREF(found);
    }
    return status;
}

int
epoll_prepare_subclass(ModuleState *module, PyObject *type)
{
    if (subclass_copy_methods(type, epoll_methods) < 0 || copy_operators(type) < 0) {
        return -1;
    }
    if (module->package.epoll == NULL) {
        module->package.epoll = (PyTypeObject *)Py_NewRef(type);
    }
    return 0;
}
