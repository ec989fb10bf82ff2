/* The docstrings of the Selector type and its methods. */
#ifndef PYEPOLL_SELECTOR_DOCS_H
#define PYEPOLL_SELECTOR_DOCS_H

#include "base/compat.h"

PyDoc_STRVAR(selector_register_doc,
"register($self, /, fileobj, events, data=None, flags=0)\n--\n\n"
"Watch fileobj, an fd number or an object with fileno(), and return its SelectorKey.\n\n"
"events is selectors.EVENT_READ, EVENT_WRITE or both; data is any object, the key's. flags is more of\n"
"epoll's bits: Event.ET, EXCLUSIVE, ONESHOT, WAKEUP, PRI, RDHUP. What PRI or RDHUP report is EVENT_READ to\n"
"who reads, else what was asked for. A number whose file was closed and which has been reused since is\n"
"registered anew, and its old key forgotten.\n\n"
"Raises KeyError when fileobj is registered; ValueError for other events, for flags with IN, OUT or unknown\n"
"bits, for what is no file object or a closed one, and when the selector is closed; OverflowError for an fd\n"
"that does not fit 32 bits; TypeError for a wrong type; OSError: EBADF when fileobj is not open, EPERM when\n"
"its file cannot be polled, EINVAL for the selector itself or for EXCLUSIVE with a flag that it does not go\n"
"with, ELOOP for epolls in a circle, ENOSPC and ENOMEM as Epoll.register. See epoll_ctl(2).");

PyDoc_STRVAR(selector_unregister_doc,
"unregister($self, /, fileobj)\n--\n\n"
"Stop to watch fileobj, which may be closed by now, and return its SelectorKey.\n\n"
"Raises KeyError when fileobj is not registered; ValueError for what is no file object; OverflowError for a\n"
"fileno() that does not fit 32 bits.");

PyDoc_STRVAR(selector_modify_doc,
"modify($self, /, fileobj, events, data=None, flags=None)\n--\n\n"
"Change the events and the data of fileobj, and return its new SelectorKey.\n\n"
"Without flags they stay as they are. With ET or ONESHOT among them the kernel looks at the file anew: an\n"
"edge is reported again, and a spent one-shot is armed. Otherwise no system call is made where only the\n"
"data change. events of 0 leave but errors and hang-ups, which are reported with events of 0.\n\n"
"Raises KeyError when fileobj is not registered, and ValueError, OverflowError and TypeError as register:\n"
"then nothing has changed; OSError: EBADF or ENOENT when its file was closed, EINVAL for a registration\n"
"with EXCLUSIVE, the rest as Epoll.modify: then fileobj is registered no more. See epoll_ctl(2).");

PyDoc_STRVAR(selector_select_doc,
"select($self, /, timeout=None)\n--\n\n"
"Wait for events and return them as a list of (SelectorKey, events).\n\n"
"timeout is in seconds, kept to the nanosecond where the kernel can and never early: None waits for ever,\n"
"0 and less polls. events is EVENT_READ, EVENT_WRITE or both, of what the key asks for; an error or a\n"
"hang-up is all that it asks for. A signal runs its handler and the wait goes on (PEP 475).\n\n"
"Raises ValueError for a timeout of nan, and when the selector is closed, also while it waits; TypeError\n"
"for a wrong type; OverflowError for a number that is too large for a float. See epoll_pwait2(2).");

PyDoc_STRVAR(selector_doc,
"Selector()\n--\n\n"
"The core of pyepoll.EpollSelector.");

#endif
