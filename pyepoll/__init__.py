"""pyepoll: epoll for Python.

    import pyepoll
    from pyepoll import Event

    with pyepoll.Epoll() as ep:
        ep.register(sock, Event.IN, data=connection)
        for connection, events in ep:
            ...

``pyepoll.Epoll`` accepts everything that ``select.epoll`` accepts; ``import pyepoll as select`` works for a
program that uses only epoll. The system calls themselves are in ``pyepoll.raw``.
"""

import sys

# Before the import of anything that an older Python cannot parse; this file has no f-string for that reason.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError("pyepoll needs CPython 3.11 or later; this is Python " + sys.version.split()[0])

from . import raw
from ._core import BusyPoll, Epoll, Registrations, Stats
from ._epoll import (
    EPOLL_CLOEXEC,
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLMSG,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDBAND,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWAKEUP,
    EPOLLWRBAND,
    EPOLLWRNORM,
    Child,
    Signals,
    Timer,
    Waker,
    use_pwait2,
)
from ._event import Event
from ._selector import EpollSelector

__all__ = [
    "EPOLLERR",
    "EPOLLET",
    "EPOLLEXCLUSIVE",
    "EPOLLHUP",
    "EPOLLIN",
    "EPOLLMSG",
    "EPOLLONESHOT",
    "EPOLLOUT",
    "EPOLLPRI",
    "EPOLLRDBAND",
    "EPOLLRDHUP",
    "EPOLLRDNORM",
    "EPOLLWAKEUP",
    "EPOLLWRBAND",
    "EPOLLWRNORM",
    "EPOLL_CLOEXEC",
    "BusyPoll",
    "Child",
    "Epoll",
    "EpollSelector",
    "Event",
    "Registrations",
    "Signals",
    "Stats",
    "Timer",
    "Waker",
    "epoll",
    "error",
    "raw",
    "use_pwait2",
]

# Where a user finds them, in texts and in pickles, whatever file they are in.
for _public in BusyPoll, Epoll, EpollSelector, Event, Registrations, Stats:
    _public.__module__ = __name__
del _public

__version__ = "0.1.0"

epoll = Epoll
"""The name of :class:`Epoll` in ``select``."""

error = OSError
"""``select.error``: the name of OSError for programs that catch it."""
