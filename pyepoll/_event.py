"""The event mask: the events of an fd, and flags of its registration."""

import enum
from typing import TYPE_CHECKING

from . import _epoll

__all__ = ["Event"]


class Event(enum.IntFlag):
    """The events that a registration asks for or a wait reports, as epoll_ctl(2) defines them.

    An ``Event`` is an int: any mask of the ``EPOLL*`` constants compares equal to it.
    ``|``, ``^``, ``~``, ``in``, iteration and pickling are those of :class:`enum.IntFlag`.
    ``&`` is int's own, and returns an int, because ``events & Event.IN`` is in the inner loop
    of every server, and enum's ``&`` costs as much as an event's share of the system call.
    So ``mask &= ~Event.OUT`` leaves an int, which every method takes; ``Event(mask)`` names its
    bits again.

    The kernel reports (level-triggered, registered for ``IN | OUT | RDHUP``):

    ============================================  =======================================
    this end, when …                              reports
    ============================================  =======================================
    pipe, read end: data                          ``IN``
    pipe, read end: all writers closed            ``HUP`` (``IN | HUP`` while data is left)
    pipe, write end: room                         ``OUT``
    pipe, write end: all readers closed           ``OUT | ERR`` (``ERR`` when full)
    stream socket: data                           ``IN | OUT``
    stream socket: the peer shut down writing     ``IN | OUT | RDHUP``
    stream socket: this end shut down writing     ``OUT``
    stream socket: both ends shut down            ``IN | OUT | RDHUP | HUP``
    Unix stream socket: the peer closed           ``IN | OUT | RDHUP | HUP``
    TCP socket: the peer closed                   ``IN | OUT | RDHUP``
    stream socket: so, with our data unread       ``IN | OUT | ERR | RDHUP | HUP``
    TCP socket: the peer reset the connection     ``IN | OUT | ERR | RDHUP | HUP``
    TCP socket: connecting                        nothing, then ``OUT``
    TCP socket: the connection was refused        ``IN | OUT | ERR | RDHUP | HUP``
    TCP socket: neither connected nor listening   ``OUT | HUP``
    listening socket: a connection to accept      ``IN``
    ============================================  =======================================

    ``ERR`` and ``HUP`` are reported whether they were asked for or not, even by a registration
    whose mask is 0.
    """

    IN = _epoll.EPOLLIN
    """There is something to read: data, a connection to accept, or the end of the stream."""
    OUT = _epoll.EPOLLOUT
    """There is room to write, or a connect has finished."""
    PRI = _epoll.EPOLLPRI
    """An exceptional condition: TCP out-of-band data, a changed cgroup or sysfs file."""
    ERR = _epoll.EPOLLERR
    """An error is pending, or a pipe's readers have gone. Reported even when not asked for."""
    HUP = _epoll.EPOLLHUP
    """Both directions have ended, or a pipe's writers have gone. Reported even when not asked for."""
    RDHUP = _epoll.EPOLLRDHUP
    """The peer of a stream socket has shut down its writing half (Linux 2.6.17)."""
    RDNORM = _epoll.EPOLLRDNORM
    """Ordinary data to read; the same as IN for most files."""
    RDBAND = _epoll.EPOLLRDBAND
    """Priority-band data to read; hardly any file of Linux reports it."""
    WRNORM = _epoll.EPOLLWRNORM
    """Room to write; the same as OUT for most files."""
    WRBAND = _epoll.EPOLLWRBAND
    """Room to write priority data."""
    MSG = _epoll.EPOLLMSG
    """Ignored by Linux; here because the header has it."""
    ET = _epoll.EPOLLET
    """Ask for edge-triggered reports: once for each change, not for as long as it lasts."""
    ONESHOT = _epoll.EPOLLONESHOT
    """Ask for one report, then none of any kind until ``rearm`` or ``modify``."""
    EXCLUSIVE = _epoll.EPOLLEXCLUSIVE
    """Ask that not every epoll that watches the file be woken (Linux 4.5).

    Only with IN, OUT, ERR, HUP, WAKEUP and ET, and it cannot be modified.
    """
    WAKEUP = _epoll.EPOLLWAKEUP
    """Ask that the system stay awake while the event is handled (Linux 3.5, CAP_BLOCK_SUSPEND)."""

    # Both are needed: with one of them alone the interpreter still goes through enum's slot.
    if TYPE_CHECKING:

        def __and__(self, other: int, /) -> int: ...  # type: ignore[override]
        def __rand__(self, other: int, /) -> int: ...  # type: ignore[override]
    else:
        __and__ = int.__and__
        __rand__ = int.__rand__

    def __str__(self) -> str:
        """The names of the bits, joined by ``|``; ``0`` when there are none."""
        return self.name or f"{int(self):#x}" if self else "0"

    @property
    def readable(self) -> bool:
        """True if a read would not block now: data, the end of the stream, or an error to fetch.

        With PRI alone, the data is out-of-band: read it with ``recv(n, MSG_OOB)`` on a TCP socket.
        """
        return bool(int(self) & _READABLE)

    @property
    def writable(self) -> bool:
        """True if a write would not block now: there is room, or an error to fetch."""
        return bool(int(self) & _WRITABLE)

    @property
    def hangup(self) -> bool:
        """True if the peer will send no more: RDHUP or HUP. Data that it sent earlier may still be unread."""
        return bool(int(self) & _HANGUP)

    @property
    def error(self) -> bool:
        """True if ERR is set: fetch the cause with ``getsockopt(SOL_SOCKET, SO_ERROR)`` or a write."""
        return bool(int(self) & _ERROR)


_READABLE = int(Event.IN | Event.RDNORM | Event.PRI | Event.RDHUP | Event.HUP | Event.ERR)
_WRITABLE = int(Event.OUT | Event.WRNORM | Event.HUP | Event.ERR)
_HANGUP = int(Event.RDHUP | Event.HUP)
_ERROR = int(Event.ERR)

_epoll._use_events(Event)
