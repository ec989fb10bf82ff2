/* What the files about fds keep in one interpreter: types, names, and asyncio's own methods. */
#ifndef PYEPOLL_FDS_STATE_H
#define PYEPOLL_FDS_STATE_H

#include "base/module_state.h"

/* Names that these files look up. The first four are methods of a loop that have a version in C here; the
 * next four are public and check for a transport first. */
enum {
    FDS_ADD_READER,
    FDS_ADD_WRITER,
    FDS_REMOVE_READER,
    FDS_REMOVE_WRITER,
    FDS_PUBLIC,
    FDS_PUBLIC_ADD_READER = FDS_PUBLIC,
    FDS_PUBLIC_ADD_WRITER,
    FDS_PUBLIC_REMOVE_READER,
    FDS_PUBLIC_REMOVE_WRITER,
    FDS_LOOP_METHODS,
    FDS_CANCEL = FDS_LOOP_METHODS,
    FDS_CANCELLED,
    FDS_CHECK_CLOSED,
    FDS_CLOSED,
    FDS_DATA,
    FDS_ENSURE_NO_TRANSPORT,
    FDS_FILENO,
    FDS_HANDLE,
    FDS_IS_CLOSED,
    FDS_SELECTOR,
    FDS_TRANSPORTS,
    FDS_NAMES
};

typedef struct {
    PyTypeObject *entry_type;
    PyTypeObject *base_type;      /* LoopSelector in C */
    PyTypeObject *readers_type;   /* a base of the loop */
    PyTypeObject *selector_class; /* pyepoll.aio's subclass of it; NULL until _learn_fds() */
    PyTypeObject *socket_type;    /* socket.socket; NULL until _learn_fds() */
    PyTypeObject *loop_class;     /* pyepoll.aio.EventLoop; NULL until _learn_fds() */
    PyTypeObject *weak_dict;      /* weakref.WeakValueDictionary */
    PyObject *events;             /* the module asyncio.events */
    PyObject *stock[FDS_PUBLIC];  /* asyncio's own methods */
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
