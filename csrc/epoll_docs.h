/* The docstrings of the Epoll type and its methods. */
#ifndef PYEPOLL_EPOLL_DOCS_H
#define PYEPOLL_EPOLL_DOCS_H

#include "compat.h"

PyDoc_STRVAR(fromfd_doc,
"fromfd($type, fd, /)\n--\n\n"
"Return an Epoll on the epoll that is already open under the number fd.\n\n"
"Where fd is an Epoll of this interpreter, both objects share its registrations, and the first close\n"
"of the two closes fd. Otherwise the data of events that others registered is the low half of their\n"
"epoll data as a signed int, as in select.epoll: their fd, as a rule.\n\n"
"Raises OSError: EBADF when fd is not open, EINVAL when it is no epoll, another where /proc does not tell;\n"
"OverflowError for an int that does not fit 32 bits.");

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Close the epoll and release all data; a second close does nothing.\n\n"
"Waits in other threads end: wait() and poll() raise ValueError, an endless iteration stops. This call\n"
"does not wait for them; the last of them to leave closes the fd.\n\n"
"Raises OSError, when the object is closed all the same: EBADF when somebody else has closed the fd\n"
"number; what epoll_ctl says when it is forbidden, for then the waits go on. See close(2).");

PyDoc_STRVAR(fileno_doc,
"fileno($self, /)\n--\n\n"
"Return the fd of the epoll: it can be watched itself, and is readable while events are ready.\n\n"
"It belongs to an epoll that watches the one that is waited on, so that nothing which pyepoll does inside\n"
"is seen outside. The first call makes it: one fd more, and for each wake-up one more step in the kernel.\n"
"Epolls nest five deep in the kernel, and an Epoll in an Epoll counts twice: three deep. Pass this fd and\n"
"no duplicate of it to fromfd(): of a duplicate, only the watching epoll is seen.\n\n"
"Raises ValueError when the object is closed; OSError: EBADF when another object has closed the same epoll,\n"
"EMFILE or ENFILE when no fd is left, ENOSPC when this user may watch no more, ELOOP when the epolls that\n"
"it watches are nested too deep; and in the child of a fork the error that keeps the copy from getting an\n"
"epoll of its own. See epoll(7).");

PyDoc_STRVAR(register_doc,
"register($self, /, fd, eventmask=7, data=...)\n--\n\n"
"Watch fd, an fd number or an object with fileno(), for the events of eventmask.\n\n"
"eventmask is Event bits joined by |, by default IN | PRI | OUT; ERR and HUP are always reported. data\n"
"is any object, by default the fd number: it comes back with each event. A number whose file was closed\n"
"and which has been reused since is registered anew.\n\n"
"Raises ValueError for unknown bits, a negative fd or a closed object; OverflowError for an fd that does\n"
"not fit 32 bits; TypeError for a wrong type;\n"
"OSError: EEXIST when fd is registered, EBADF when it is not open, EPERM when its file cannot be polled,\n"
"EINVAL for the epoll itself or for EXCLUSIVE with a flag that it does not go with, ELOOP for epolls in a\n"
"circle, ENOSPC at the limit of /proc/sys/fs/epoll/max_user_watches, ENOMEM. See epoll_ctl(2).");

PyDoc_STRVAR(modify_doc,
"modify($self, /, fd, eventmask, data=...)\n--\n\n"
"Change what the registered fd is watched for, and its data if any is given.\n\n"
"The kernel looks at the file anew: an edge is reported again, and a spent one-shot is armed.\n\n"
"Raises what register raises, but ENOENT when fd is not registered instead of EEXIST, and EINVAL for a\n"
"registration with EXCLUSIVE. After EBADF or ENOENT the number is no longer registered.\n"
"See epoll_ctl(2), EPOLL_CTL_MOD.");

PyDoc_STRVAR(unregister_doc,
"unregister($self, /, fd)\n--\n\n"
"Stop watching fd. After this call none of its events comes out of any iterator.\n\n"
"Unregister an object before you close it: a closed one has no fd any more, and stays registered. If it is\n"
"closed already, pass the int that its fileno() was: that registration is removed, although EBADF is raised\n"
"where the kernel has removed it.\n\n"
"Raises OSError: ENOENT when fd is not registered, EBADF when it is not open, EPERM when its file cannot\n"
"be polled, EINVAL for the epoll itself: even then fd is no longer registered. Raises ValueError for a\n"
"closed object or a negative fd, and ValueError, OverflowError and TypeError as register: then nothing has\n"
"changed. See epoll_ctl(2), EPOLL_CTL_DEL.");

PyDoc_STRVAR(rearm_doc,
"rearm($self, /, fd)\n--\n\n"
"Apply the mask that fd is registered with once more: arm a spent one-shot, report an edge again.\n\n"
"Raises what modify raises.");

PyDoc_STRVAR(poll_doc,
"poll($self, /, timeout=None, maxevents=-1)\n--\n\n"
"Wait for events and return them as a list of (data, events), as true as when the call returned.\n\n"
"timeout is in seconds, an int or a float, kept to the nanosecond where the kernel can and never\n"
"early: None or -1 waits for ever, 0 polls, any other negative is a deadline that has passed and polls.\n"
"From CPython 3.15 on, any other object with __float__ is accepted too, as select.epoll accepts it.\n"
"maxevents is how many events to return at most; -1 sets no limit.\n\n"
"A signal runs its handler and the wait goes on (PEP 475); what the handler raises comes out.\n\n"
"Raises ValueError for maxevents below 1, for a timeout of nan, and when the object is closed, also\n"
"while it waits; TypeError for a wrong type. See epoll_pwait2(2), Linux 5.11; before that, where a\n"
"seccomp profile forbids the call, and after use_pwait2(False), epoll_wait(2) with milliseconds, rounded\n"
"up.");

PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None, maxevents=-1, sigmask=None)\n--\n\n"
"Wait for events and return an iterator that hands them out as (data, events), one batch.\n\n"
"Each event is checked when it is handed out: one whose registration was removed or replaced meanwhile\n"
"is passed over. When the iterator is dropped before its end, edges and one-shots that it did not hand\n"
"out are armed again.\n\n"
"timeout and maxevents are as in poll. sigmask is an iterable of the signal numbers to block for the\n"
"time of the wait, set and taken back atomically with it (epoll_pwait), or None.\n\n"
"Raises what poll raises, ValueError for an invalid signal number, and OverflowError for one that does\n"
"not fit 32 bits.");

PyDoc_STRVAR(stats_doc,
"_stats($self, /)\n--\n\n"
"Return the counters as a tuple, in the order of the fields of Stats.");

PyDoc_STRVAR(public_fd_doc,
"_public_fd($self, /)\n--\n\n"
"Return what fileno() returns, or would. For texts: nothing is made for it.");

PyDoc_STRVAR(instance_fd_doc,
"_instance_fd($self, /)\n--\n\n"
"Return the fd of the kernel instance, whose fdinfo lists the registrations. A rebuild may change it.");

PyDoc_STRVAR(fds_doc,
"_fds($self, /)\n--\n\n"
"Return the registered fd numbers as a list, in ascending order.");

PyDoc_STRVAR(get_params_doc,
"_get_params($self, /)\n--\n\n"
"Return what raw.epoll_get_params returns for this epoll, and raise what it raises.");

PyDoc_STRVAR(set_params_doc,
"_set_params($self, /, busy_poll_usecs, busy_poll_budget, prefer_busy_poll)\n--\n\n"
"Do what raw.epoll_set_params does for this epoll, and raise what it raises.");

PyDoc_STRVAR(registration_doc,
"_registration($self, fd, /)\n--\n\n"
"Return (events, data) of the registered fd, an int or an object with fileno(); None for any other key.\n\n"
"Raises ValueError for a closed object, and what fileno() raises.");

PyDoc_STRVAR(epoll_doc,
"Epoll(sizehint=-1, flags=0)\n--\n\n"
"An epoll: watches fds and hands out their events with the data they were registered with.\n\n"
"A drop-in for select.epoll that adds data, iteration, rearm and a mapping of what is registered.\n"
"sizehint is a positive int or -1, and ignored; flags is 0 or EPOLL_CLOEXEC, which is always set.\n\n"
"    for data, events in ep:    wait for events and hand them out indefinitely; see __iter__ and wait\n"
"    len(ep), fd in ep          how many fds are registered, and whether fd is\n\n"
"Every method may be called from any thread at any time, and from a signal handler. In the child of a\n"
"fork the object is a copy with registrations of its own.\n\n"
"Raises OSError: EMFILE or ENFILE when no fd is left, EINVAL for other flags; ValueError for a sizehint\n"
"out of range; OverflowError for an int that does not fit 32 bits. See epoll(7), Linux 4.5.");

#endif
