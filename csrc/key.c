#include "key.h"

#include "convert.h"
#include "flags.h"

#include <limits.h>

PyObject *
key_new(const ModuleState *module, PyObject *fileobj, PyObject *fd, PyObject *events, PyObject *data)
{
    if (module->key_type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "import pyepoll, which says what a key is");
        return NULL;
    }
    /* What SelectorKey._make does: a tuple of the type, without its __new__ in Python. */
    PyObject *items = PyTuple_Pack(KEY_SIZE, fileobj, fd, events, data);
    PyObject *args = items != NULL ? PyTuple_Pack(1, items) : NULL;
    PyObject *key = args != NULL ? PyTuple_Type.tp_new(module->key_type, args, NULL) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(items);
    return key;
}

int
key_asked(const ModuleState *module, PyObject *key)
{
    PyObject *item = key_is(module, key) ? PyTuple_GET_ITEM(key, KEY_EVENTS) : NULL;
    if (item == NULL || !PyLong_Check(item)) {
        return NO_KEY;
    }
    int overflow;
    long asked = PyLong_AsLongAndOverflow(item, &overflow);
    return overflow == 0 && (asked & ~(EVENT_READ | EVENT_WRITE)) == 0 ? (int)asked : NO_KEY;
}

/* As selectors has it: what is neither plain reading nor plain writing, an error say, is both. The bits that
 * only who asks for them gets are one of the two. */
int
key_events(const ModuleState *module, PyObject *key, uint32_t events)
{
    const uint32_t reads = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLRDNORM | EPOLLRDBAND;
    const uint32_t writes = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
    int asked = key_asked(module, key);
    if (asked == NO_KEY) {
        return NO_KEY;
    }
    int happened = ((events & ~writes) != 0 ? EVENT_READ : 0) | ((events & ~reads) != 0 ? EVENT_WRITE : 0);
    /* A writer that asked for the end of the stream too is told of it, with the only word that it knows. */
    return (happened & asked) != 0 ? happened & asked : asked;
}

static PyObject *
refuse_file(const char *what, PyObject *fileobj)
{
    PyErr_Clear();
    return PyErr_Format(PyExc_ValueError, "Invalid %s: %R", what, fileobj);
}

PyObject *
key_open_number(PyObject *fileobj, int *fd)
{
    if (PyLong_Check(fileobj)) {
        int overflow;
        long value = PyLong_AsLongAndOverflow(fileobj, &overflow);
        if (overflow < 0 || (overflow == 0 && value < 0)) {
            return refuse_file("file descriptor", fileobj);
        }
        *fd = overflow == 0 && value <= INT_MAX ? (int)value : -1;
        /* An int itself, which has no Python code that a look-up would run: int.__int__(fileobj). */
        return PyLong_Type.tp_as_number->nb_int(fileobj);
    }
    if (convert_fd(fileobj, fd) == 0) {
        return PyLong_FromLong(*fd);
    }
    return PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
                   PyErr_ExceptionMatches(PyExc_ValueError)
               ? refuse_file("file object", fileobj)
               : NULL;
}

/* The number under which a file object is among the keys, an int itself: a new reference, or NULL without an
 * exception. */
static PyObject *
search(const ModuleState *module, PyObject *keys, PyObject *fileobj)
{
    PyObject *found = NULL, *number, *key;
    Py_ssize_t position = 0;
    Py_BEGIN_CRITICAL_SECTION(keys);
    while (found == NULL && PyDict_Next(keys, &position, &number, &key)) {
        if (key_is(module, key) && PyTuple_GET_ITEM(key, KEY_FILEOBJ) == fileobj && PyLong_Check(number)) {
            found = Py_NewRef(number);
        }
    }
    Py_END_CRITICAL_SECTION();
    if (found != NULL) {
        Py_SETREF(found, PyLong_Type.tp_as_number->nb_int(found));
    }
    return found;
}

PyObject *
key_number_of(const ModuleState *module, PyObject *keys, PyObject *fileobj, int *fd)
{
    PyObject *number = key_open_number(fileobj, fd);
    if (number == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyObject *error = PyErr_GetRaisedException();
        *fd = -1;
        number = search(module, keys, fileobj);
        if (number == NULL && !PyErr_Occurred()) {
            PyErr_SetRaisedException(error);
        }
        else {
            Py_XDECREF(error);
        }
    }
    return number;
}

PyObject *
key_number(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyDict_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_key_number() takes a dict and a file object");
        return NULL;
    }
    int fd;
    return key_number_of(PyModule_GetState(module), args[0], args[1], &fd);
}
