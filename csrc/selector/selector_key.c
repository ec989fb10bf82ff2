#include "selector/selector_key.h"

#include "base/convert.h"
#include "base/flags.h"
#include "core/event_member.h"

#include <limits.h>

PyObject *
selector_key_new(const ModuleState *module, PyObject *fileobj, PyObject *fd, PyObject *events, PyObject *data)
{
    if (module->package.selector_key == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "import pyepoll, which says what a key is");
        return NULL;
    }
    /* As SelectorKey._make: tuple.__new__(SelectorKey, items), without its __new__ in Python. */
    PyObject *type = (PyObject *)module->package.selector_key;
    PyObject *items = PyTuple_Pack(KEY_SIZE, fileobj, fd, events, data);
    PyObject *key = items != NULL ? PyTuple_Type.tp_vectorcall(type, &items, 1, NULL) : NULL;
    Py_XDECREF(items);
    return key;
}

int
selector_key_asked(const ModuleState *module, PyObject *key)
{
    PyObject *item = is_selector_key(module, key) ? PyTuple_GET_ITEM(key, KEY_EVENTS) : NULL;
    if (item == NULL || !PyLong_Check(item)) {
        return NO_KEY;
    }
    int overflow;
    long asked = PyLong_AsLongAndOverflow(item, &overflow);
    return overflow == 0 && (asked & ~(EVENT_READ | EVENT_WRITE)) == 0 ? (int)asked : NO_KEY;
}

/* The events of selectors for an event mask. As in selectors, an event that is neither plain reading nor
 * plain writing, such as an error, is both. The bits that are reported only on request are one of the two. */
static int
reported_events(int asked, uint32_t events)
{
    const uint32_t reads = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLRDNORM | EPOLLRDBAND;
    const uint32_t writes = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
    /* A key for no event gets what `flags` asked for: selectors has no event for an error or a hang-up. */
    events &= asked != 0 ? events : ~(uint32_t)(EPOLLERR | EPOLLHUP);
    int happened = ((events & ~writes) != 0 ? EVENT_READ : 0) | ((events & ~reads) != 0 ? EVENT_WRITE : 0);
    if (asked == 0) {
        return happened;
    }
    /* A key for EVENT_WRITE that asked for the end of the stream gets it as EVENT_WRITE: all that it asks
     * for. */
    return (happened & asked) != 0 ? happened & asked : asked;
}

PyObject *
selector_key_make_events(ModuleState *module, uint32_t events, PyObject *data)
{
    int asked = selector_key_asked(module, data);
    return asked != NO_KEY ? PyLong_FromLong(reported_events(asked, events)) : event_member(module, events);
}

static PyObject *
raise_invalid(const char *what, PyObject *fileobj)
{
    PyErr_Clear();
    return PyErr_Format(PyExc_ValueError, "Invalid %s: %R", what, fileobj);
}

PyObject *
fileobj_fd(PyObject *fileobj, int *fd)
{
    if (PyLong_Check(fileobj)) {
        int overflow;
        long value = PyLong_AsLongAndOverflow(fileobj, &overflow);
        if (overflow < 0 || (overflow == 0 && value < 0)) {
            return raise_invalid("file descriptor", fileobj);
        }
        *fd = overflow == 0 && value <= INT_MAX ? (int)value : -1;
        /* An exact int, which has no Python code that a look-up would run: int.__int__(fileobj). */
        return PyLong_Type.tp_as_number->nb_int(fileobj);
    }
    if (convert_fd(fileobj, fd) == 0) {
        return PyLong_FromLong(*fd);
    }
    return PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
                   PyErr_ExceptionMatches(PyExc_ValueError)
               ? raise_invalid("file object", fileobj)
               : NULL;
}

PyObject *
registered_fd(const ModuleState *module, PyObject *keys, PyObject *fileobj)
{
    PyObject *found = NULL, *fd_object, *key;
    Py_ssize_t position = 0;
    Py_BEGIN_CRITICAL_SECTION(keys);
    while (found == NULL && PyDict_Next(keys, &position, &fd_object, &key)) {
        if (is_selector_key(module, key) && PyTuple_GET_ITEM(key, KEY_FILEOBJ) == fileobj &&
            PyLong_Check(fd_object)) {
            found = Py_NewRef(fd_object);
        }
    }
    Py_END_CRITICAL_SECTION();
    if (found != NULL) {
        Py_SETREF(found, PyLong_Type.tp_as_number->nb_int(found));
    }
    return found;
}

PyObject *
fileobj_fd_or_registered(const ModuleState *module, PyObject *keys, PyObject *fileobj, int *fd)
{
    PyObject *fd_object = fileobj_fd(fileobj, fd);
    if (fd_object == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyObject *error = PyErr_GetRaisedException();
        *fd = -1;
        fd_object = registered_fd(module, keys, fileobj);
        if (fd_object == NULL && !PyErr_Occurred()) {
            PyErr_SetRaisedException(error);
        }
        else {
            Py_XDECREF(error);
        }
    }
    return fd_object;
}

PyDoc_STRVAR(use_keys_doc,
"_use_keys($module, type, /)\n--\n\n"
"Let Selector.register make keys of type, which is selectors.SelectorKey.");

static PyObject *
use_keys(PyObject *module, PyObject *type)
{
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &PyTuple_Type)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of tuple", type);
    }
    ModuleState *state = PyModule_GetState(module);
    Py_XSETREF(state->package.selector_key, (PyTypeObject *)Py_NewRef(type));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(selector_key_fd_doc,
"_key_number($module, keys, fileobj, /)\n--\n\n"
"Return the fd of a file object: for a closed one, that of its SelectorKey in the dict keys.\n\n"
"Raises ValueError when it has none.");

static PyObject *
selector_key_fd(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyDict_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_key_number() takes a dict and a file object");
        return NULL;
    }
    int fd;
    return fileobj_fd_or_registered(PyModule_GetState(module), args[0], args[1], &fd);
}

PyMethodDef selector_key_functions[] = {
    {"_key_number", (PyCFunction)(void (*)(void))selector_key_fd, METH_FASTCALL, selector_key_fd_doc},
    {"_use_keys",   use_keys,                                     METH_O,        use_keys_doc       },
    {NULL,          NULL,                                         0,             NULL               },
};
