/* The docstrings of the Epoll type and its methods. */
#ifndef PYEPOLL_EPOLL_DOCS_H
#define PYEPOLL_EPOLL_DOCS_H

#include "base/compat.h"

PyDoc_STRVAR(fromfd_doc,
"fromfd($type, fd, /)\n--\n\n"
"Return an Epoll for the epoll that is already open as fd.\n\n"
"If fd is an Epoll of this interpreter, both objects share its registrations, and the first close of the\n"
"two closes fd. Otherwise, the data of an event that others registered is the low half of its epoll data\n"
"as a signed int, as in select.epoll: usually the fd.\n\n"
"Raises OSError: EBADF if fd is not open, EINVAL if it is not an epoll, another errno if /proc cannot be\n"
"read; OverflowError for an int that does not fit 32 bits.");

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Close the epoll and release all data; a second close does nothing.\n\n"
"Waits in other threads end: wait() and poll() raise ValueError, an endless iteration stops. This call\n"
"does not wait for them; the last of them to return closes the fd.\n\n"
"Raises OSError, but the object is closed all the same: EBADF if the fd has been closed elsewhere; the\n"
"errno of epoll_ctl if that call is forbidden, and then the waits go on. See close(2).");

PyDoc_STRVAR(fileno_doc,
"fileno($self, /)\n--\n\n"
"Return the fd of the epoll. It can be watched itself, and is readable while events are ready.\n\n"
"It is the fd of a second epoll, which watches the one that waits use: pyepoll may replace the latter, and\n"
"watchers of this fd do not notice. The first call makes it, which costs one fd, and one more step in the\n"
"kernel for each wake-up. The kernel nests epolls five deep, and an Epoll in an Epoll counts twice: Epolls\n"
"nest three deep. Pass this fd itself to fromfd(): a duplicate of it shows only the second epoll.\n\n"
"Raises ValueError if the object is closed; OSError: EBADF if the same epoll was closed through another\n"
"object, EMFILE or ENFILE if no fd is left, ENOSPC if this user may not watch more files, ELOOP if the\n"
"epolls that it watches are nested too deep; and in the child of a fork, the error that prevents the copy\n"
"from getting an epoll of its own. See epoll(7).");

PyDoc_STRVAR(register_doc,
"register($self, /, fd, eventmask=7, data=...)\n--\n\n"
"Watch fd, an int or an object with fileno(), for the events of eventmask.\n\n"
"eventmask is Event bits joined by |, by default IN | PRI | OUT; ERR and HUP are always reported. With OUT,\n"
"a socket that has room to send is reported at every wait: ask for IN alone until you have data to send.\n"
"data is any object, by default the fd as an int; each event returns it. An fd that was closed and now\n"
"refers to another file can be registered again.\n\n"
"Raises ValueError for unknown bits, a negative fd or a closed object; OverflowError for an fd that does\n"
"not fit 32 bits; TypeError for a wrong type;\n"
"OSError: EEXIST if fd is registered, EBADF if it is not open, EPERM if its file cannot be polled, EINVAL\n"
"for the epoll itself or for EXCLUSIVE with a flag that it cannot be combined with, ELOOP for epolls in a\n"
"circle, ENOSPC at the limit of /proc/sys/fs/epoll/max_user_watches, ENOMEM. See epoll_ctl(2).\n\n"
"With Epoll(always_ready=True), a file that cannot be polled is accepted instead, and raises EMFILE or\n"
"ENFILE if no fd is left for it. If you closed it without unregister and opened the same file again under\n"
"the same fd, register raises EEXIST: the two cannot be told apart.");

PyDoc_STRVAR(modify_doc,
"modify($self, /, fd, eventmask, data=...)\n--\n\n"
"Change the event mask of a registered fd, and its data if data is given.\n\n"
"The kernel checks the file again: an edge is reported once more, and a disarmed one-shot is armed.\n\n"
"Raises the same errors as register, but ENOENT if fd is not registered instead of EEXIST, and EINVAL for a\n"
"registration with EXCLUSIVE. After EBADF or ENOENT, fd is no longer registered.\n"
"See epoll_ctl(2), EPOLL_CTL_MOD.");

PyDoc_STRVAR(unregister_doc,
"unregister($self, /, fd)\n--\n\n"
"Stop watching fd. After this call none of its events comes out of any iterator.\n\n"
"Unregister an object before you close it: a closed object has no fd any more, and stays registered. If it\n"
"is closed already, pass the int that its fileno() was: this removes the registration, although it raises\n"
"EBADF if the kernel has removed its entry.\n\n"
"Raises OSError: ENOENT if fd is not registered, EBADF if it is not open, EPERM if its file cannot be\n"
"polled, EINVAL for the epoll itself: even then fd is no longer registered. Raises ValueError for a closed\n"
"object or a negative fd, and ValueError, OverflowError and TypeError as register: then nothing has\n"
"changed. See epoll_ctl(2), EPOLL_CTL_DEL.");

PyDoc_STRVAR(rearm_doc,
"rearm($self, /, fd)\n--\n\n"
"Apply the present event mask of fd once more: arm a disarmed one-shot, report an edge again.\n\n"
"Raises the same errors as modify.");

PyDoc_STRVAR(poll_doc,
"poll($self, /, timeout=None, maxevents=-1)\n--\n\n"
"Wait for events and return them as a list of (data, events): a snapshot of the moment of the return.\n\n"
"timeout is in seconds, an int or a float, with a resolution of nanoseconds if the kernel has it, and never\n"
"early: None or -1 waits indefinitely, 0 does not wait, any other negative number is a deadline that has\n"
"passed and does not wait. From CPython 3.15 on, other objects with __float__ are accepted too, as by\n"
"select.epoll. maxevents is the greatest number of events to return; -1 sets no limit.\n\n"
"A signal runs its handler and the wait goes on (PEP 475); an exception of the handler is raised.\n\n"
"Raises ValueError for maxevents below 1, for a timeout of nan, and if the object is closed, also during\n"
"the wait; TypeError for a wrong type. See epoll_pwait2(2), Linux 5.11; before that, if a seccomp profile\n"
"forbids the call, and after use_pwait2(False): epoll_wait(2) with milliseconds, rounded up.");

PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None, maxevents=-1, sigmask=None)\n--\n\n"
"Wait for events and return an iterator that hands them out as (data, events), one batch.\n\n"
"Each event is checked when it is handed out: it is skipped if its registration was removed or replaced\n"
"meanwhile. If the iterator is dropped before its end, edges and one-shots that it did not hand out are\n"
"armed again.\n\n"
"timeout and maxevents are as in poll. sigmask is an iterable of the signal numbers to block during the\n"
"wait, set and reset atomically with it (epoll_pwait), or None.\n\n"
"Raises the same errors as poll, ValueError for an invalid signal number, and OverflowError for one that\n"
"does not fit 32 bits.");

PyDoc_STRVAR(stats_doc,
"_stats($self, /)\n--\n\n"
"Return the counters as a tuple, in the order of the fields of Stats.");

PyDoc_STRVAR(public_fd_doc,
"_public_fd($self, /)\n--\n\n"
"Return the fd that fileno() returns, or would return, without making a second epoll for it. For texts.");

PyDoc_STRVAR(instance_fd_doc,
"_instance_fd($self, /)\n--\n\n"
"Return the fd of the kernel instance, whose fdinfo lists the registrations. A rebuild may change it.");

PyDoc_STRVAR(fds_doc,
"_fds($self, /)\n--\n\n"
"Return the registered fds as a list, in ascending order.");

PyDoc_STRVAR(get_params_doc,
"_get_params($self, /)\n--\n\n"
"Return what raw.epoll_get_params returns for this epoll, and raise what it raises.");

PyDoc_STRVAR(set_params_doc,
"_set_params($self, /, busy_poll_usecs, busy_poll_budget, prefer_busy_poll)\n--\n\n"
"Do what raw.epoll_set_params does for this epoll, and raise what it raises.");

PyDoc_STRVAR(registration_doc,
"_registration($self, fd, /)\n--\n\n"
"Return (events, data) of the registered fd, an int or an object with fileno(); None for any other key.\n\n"
"Raises ValueError for a closed object, and the exceptions of fileno().");

PyDoc_STRVAR(epoll_doc,
"Epoll(sizehint=-1, flags=0, *, always_ready=False)\n--\n\n"
"An epoll: watches fds and hands out their events with the data they were registered with.\n\n"
"A drop-in for select.epoll that adds data, iteration, rearm and a mapping of the registrations.\n"
"sizehint is a positive int or -1, and ignored; flags is 0 or EPOLL_CLOEXEC, which is always set.\n\n"
"always_ready is whether to accept files that the kernel refuses with EPERM, such as regular files and\n"
"/dev/null. As in poll(2), they are ready for IN, OUT, RDNORM and WRNORM, as far as the mask asks for it:\n"
"at each wait, with ET once for each register, modify and rearm, with ONESHOT once. Each takes one more\n"
"fd.\n\n"
"    for data, events in ep:    wait for events and hand them out indefinitely; see __iter__ and wait\n"
"    len(ep), fd in ep          the number of registered fds; whether fd is registered\n\n"
"Every method may be called from any thread at any time, and from a signal handler. In the child of a\n"
"fork the object is a copy with registrations of its own.\n\n"
"Raises OSError: EMFILE or ENFILE if no fd is left, EINVAL for other flags; ValueError for a sizehint\n"
"out of range; OverflowError for an int that does not fit 32 bits. See epoll(7), Linux 4.5.");

#endif
