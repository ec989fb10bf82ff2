/* The docstrings of the LoopSelector type and its methods. */
#ifndef PYEPOLL_LOOP_SELECTOR_DOCS_H
#define PYEPOLL_LOOP_SELECTOR_DOCS_H

#include "base/compat.h"

PyDoc_STRVAR(use_epoll_doc,
"_use_epoll($self, epoll, /)\n--\n\n"
"Keep the registrations in epoll, an Epoll that is used for nothing else.");

PyDoc_STRVAR(register_doc,
"register($self, /, fileobj, events, data=None)\n--\n\n"
"Watch fileobj, an fd or an object with fileno(), and return its SelectorKey. events is EVENT_READ,\n"
"EVENT_WRITE or both. An fd that was closed and now refers to another file can be registered again.\n\n"
"Raises KeyError if fileobj is registered; ValueError for other events, an invalid or closed file object,\n"
"and if the selector is closed; OverflowError for an fd that does not fit 32 bits; RuntimeError in a child\n"
"of the process that made it; OSError: EBADF, EPERM, EINVAL, ELOOP, ENOSPC and ENOMEM as Epoll.register.");

PyDoc_STRVAR(modify_doc,
"modify($self, /, fileobj, events, data=None)\n--\n\n"
"Change the events and the data of fileobj, and return its new SelectorKey. If the fd was closed and now\n"
"refers to another file, that file is registered.\n\n"
"Raises KeyError if fileobj is not registered, and the rest as register(): then it is not registered any\n"
"more if the error is an OSError.");

PyDoc_STRVAR(unregister_doc,
"unregister($self, /, fileobj)\n--\n\n"
"Stop watching fileobj, which may be closed already, and return its SelectorKey.\n\n"
"Raises KeyError if fileobj is not registered; ValueError for an invalid file object.");

PyDoc_STRVAR(select_doc,
"select($self, /, timeout=None)\n--\n\n"
"Wait for events and return them as a list of (SelectorKey, events), as EpollSelector.select().\n\n"
"Raises ValueError for a timeout of nan, and if the selector is closed, also during the wait; TypeError for\n"
"a wrong type; RuntimeError in a child of the process that made it.");

PyDoc_STRVAR(get_doc,
"_get($self, fileobj, /)\n--\n\n"
"The SelectorKey of a file object or fd, or None. Raises ValueError for an object that is no file object.");

PyDoc_STRVAR(fds_doc,
"_fds($self, /)\n--\n\n"
"A list of the fds that are registered.");

PyDoc_STRVAR(clear_doc,
"_clear($self, /)\n--\n\n"
"Forget everything that is registered, without a system call.");

PyDoc_STRVAR(loop_selector_doc,
"LoopSelector()\n--\n\n"
"The core of pyepoll.aio's LoopSelector.");

#endif
