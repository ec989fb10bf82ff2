/* The state of the files about fds in one interpreter: types, names, and asyncio's own methods. */
#ifndef PYEPOLL_FDS_STATE_H
#define PYEPOLL_FDS_STATE_H

#include "base/module_state.h"

#include <stdatomic.h>

/* Names that these files look up. */
enum {
    FDS_CANCEL,
    FDS_CANCELLED,
    FDS_CLOSE,
    FDS_CLOSED,
    FDS_CONNECT,
    FDS_DATA,
    FDS_FILENO,
    FDS_GETPEERNAME,
    FDS_GETSOCKNAME,
    FDS_GETSOCKOPT,
    FDS_GETTIMEOUT,
    FDS_INIT,
    FDS_IO_REFS,
    FDS_KEY,
    FDS_NAME,
    FDS_REAL_CLOSE,
    FDS_REMOVE,
    FDS_SETBLOCKING,
    FDS_TRANSPORTS,
    FDS_NAMES
};

typedef struct {
    PyTypeObject *entry_type;
    PyTypeObject *base_type;      /* LoopSelector in C */
    PyTypeObject *selector_class; /* pyepoll.aio's subclass of it; NULL until _learn_fds() */
    PyTypeObject *socket_type;    /* socket.socket; NULL until _learn_fds() */
    Py_ssize_t io_refs_offset;    /* of its attribute _io_refs; -1: it is not CPython's own class */
    PyObject *socket_close;       /* close() of its base */
    PyObject *zero;
    /* The descriptors of its base, which return ints where the properties of socket.socket make enums. NULL:
     * socket_is_plain() is false for every socket. */
    PyObject *socket_family;
    PyObject *socket_kind; /* of the attribute `type` */
    PyObject *socket_proto;
    PyObject *socket_fileno;    /* ... and its method fileno() */
    atomic_uint fileno_version; /* of socket_type, when it was found to have that method; 0: look again */
    atomic_uint socket_version; /* of socket_type, when its methods were found to be in C */
    PyTypeObject *weak_dict;    /* weakref.WeakValueDictionary */
    PyTypeObject *keyed_ref;    /* weakref.KeyedRef, of its values */
    PyObject *names[FDS_NAMES];
} FdsState;

struct AioState;

/* Make the types and names. 0, or -1 with an exception. */
int fds_init(PyObject *module, FdsState *state);
int fds_traverse(const FdsState *state, visitproc visit, void *arg);
void fds_clear(FdsState *state);
void fds_free(FdsState *state);

/* _learn_fds(): the classes of the package, and the methods of its loop in C. */
PyObject *fds_learn(PyObject *module, PyObject *args);

#endif
