/* The docstrings of the Selector type and its methods. */
#ifndef PYEPOLL_SELECTOR_DOCS_H
#define PYEPOLL_SELECTOR_DOCS_H

#include "base/compat.h"

PyDoc_STRVAR(selector_register_doc,
"register($self, /, fileobj, events, data=None, flags=0)\n--\n\n"
"Watch fileobj, an fd or an object with fileno(), and return its SelectorKey.\n\n"
"events is selectors.EVENT_READ, EVENT_WRITE or both; data is any object, stored in the key. flags adds\n"
"epoll bits: Event.ET, EXCLUSIVE, ONESHOT, WAKEUP, PRI, RDHUP. PRI and RDHUP are reported as EVENT_READ if\n"
"events has it, else as EVENT_WRITE. events may be 0 where flags has an event: register(fd, 0,\n"
"flags=Event.PRI) waits for PRI alone and reports it as EVENT_READ, and an error or a hang-up alone as 0.\n"
"An fd that was closed and now refers to another file can be registered again; its old key is dropped.\n\n"
"Raises KeyError if fileobj is registered; ValueError for other events, for flags with IN, OUT or unknown\n"
"bits, for an invalid or closed file object, and if the selector is closed; OverflowError for an fd that\n"
"does not fit 32 bits; TypeError for a wrong type; OSError: EBADF if fileobj is not open, EPERM if its file\n"
"cannot be polled, EINVAL for the selector itself or for EXCLUSIVE with a flag that it cannot be combined\n"
"with, ELOOP for epolls in a circle, ENOSPC and ENOMEM as Epoll.register. See epoll_ctl(2).");

PyDoc_STRVAR(selector_unregister_doc,
"unregister($self, /, fileobj)\n--\n\n"
"Stop watching fileobj, which may be closed already, and return its SelectorKey. An object whose fileno()\n"
"has changed since it was registered is unregistered under its earlier fd, if others registered its new\n"
"one.\n\n"
"Raises KeyError if fileobj is not registered; ValueError for an invalid file object; OverflowError for a\n"
"fileno() that does not fit 32 bits.");

PyDoc_STRVAR(selector_modify_doc,
"modify($self, /, fileobj, events, data=None, flags=None)\n--\n\n"
"Change the events and the data of fileobj, and return its new SelectorKey.\n\n"
"If flags is not given, the flags stay as they are. With ET or ONESHOT among them, the kernel checks the\n"
"file again: an edge is reported once more, and a disarmed one-shot is armed. Otherwise no system call is\n"
"made if nothing changes, and one if only the data change. With events of 0, only what flags asks for and\n"
"errors and hang-ups are reported, the latter two with events of 0.\n\n"
"If the fd was closed and now refers to another file, that file is registered, provided that fileobj, or\n"
"the fileobj of the key, is an int or an object whose fileno() returns this fd. If only the first has it,\n"
"it becomes the key's.\n\n"
"Raises KeyError if fileobj is not registered, and ValueError, OverflowError and TypeError as register:\n"
"then nothing has changed; OSError: EBADF if its fd is closed and the events change, ENOENT if it refers to\n"
"a file that neither object stands for, EINVAL if the events of a registration with EXCLUSIVE change,\n"
"the rest as Epoll.modify and register: then fileobj is no longer registered. See epoll_ctl(2).");

PyDoc_STRVAR(selector_select_doc,
"select($self, /, timeout=None)\n--\n\n"
"Wait for events and return them as a list of (SelectorKey, events).\n\n"
"timeout is in seconds, with a resolution of nanoseconds if the kernel has it, and never early: None waits\n"
"indefinitely, 0 or less does not wait. events is EVENT_READ, EVENT_WRITE or both, limited to those of the\n"
"key unless it has none; an error or a hang-up is reported as all events of the key. A signal runs its\n"
"handler, and the wait goes on (PEP 475).\n\n"
"Raises ValueError for a timeout of nan, and if the selector is closed, also during the wait; TypeError for\n"
"a wrong type; OverflowError for a number that is too large for a float. See epoll_pwait2(2).");

PyDoc_STRVAR(selector_doc,
"Selector()\n--\n\n"
"The core of pyepoll.EpollSelector.");

#endif
