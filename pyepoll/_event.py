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

    The page "Pollable file types and the events they report" of the documentation has tables for the other
    types of file: datagram sockets, FIFOs, terminals, timers, inotify, sysfs and more.
    """

    IN = _epoll.EPOLLIN
    """There is something to read: data, a connection to accept, or the end of the stream."""
    OUT = _epoll.EPOLLOUT
    """There is room to write, or a connect has finished."""
    PRI = _epoll.EPOLLPRI
    """An exceptional condition: TCP out-of-band data, a changed cgroup or sysfs file."""
    ERR = _epoll.EPOLLERR
    """An error, or a message in a socket's error queue, is pending, or a pipe's readers have gone.

    Reported even when not asked for.
    """
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
        """True if there is something to fetch: data, the end of the stream, or an error.

        True for IN, RDNORM, PRI, RDHUP, HUP and ERR. A read does not block, with two exceptions:

        - ERR without IN can be a message in the error queue of a healthy socket (MSG_ZEROCOPY,
          SO_TIMESTAMPING, IP_RECVERR): fetch it with ``recvmsg(n, m, MSG_ERRQUEUE)``, or it is reported
          again. A blocking ``recv`` sleeps.
        - PRI without IN is out-of-band data of a TCP socket, which ``recv(n, MSG_OOB)`` reads, or a change
          of a file in sysfs, cgroup or procfs, which is read from its beginning.

        Therefore make the file non-blocking, and take BlockingIOError for "nothing yet".
        """
        return bool(int(self) & _READABLE)

    @property
    def writable(self) -> bool:
        """True for OUT, WRNORM, HUP and ERR: there is room to write, or an error to fetch.

        ERR without OUT can be a message in the error queue of a socket whose send buffer is full; see
        ``readable``. A blocking write then sleeps, as it does if there is less room than it needs.
        """
        return bool(int(self) & _WRITABLE)

    @property
    def hangup(self) -> bool:
        """True if the peer will send no more: RDHUP or HUP. Data that it sent earlier may still be unread."""
        return bool(int(self) & _HANGUP)

    @property
    def error(self) -> bool:
        """True if ERR is set: fetch the cause, or it is reported again.

        For a socket, first ``recvmsg(n, m, MSG_ERRQUEUE)`` until BlockingIOError, then
        ``getsockopt(SOL_SOCKET, SO_ERROR)``: the latter does not clear the error queue, which a healthy
        socket may have messages in (MSG_ZEROCOPY, SO_TIMESTAMPING, IP_RECVERR). For the write end of a pipe,
        the readers have gone.
        """
        return bool(int(self) & _ERROR)


_READABLE = int(Event.IN | Event.RDNORM | Event.PRI | Event.RDHUP | Event.HUP | Event.ERR)
_WRITABLE = int(Event.OUT | Event.WRNORM | Event.HUP | Event.ERR)
_HANGUP = int(Event.RDHUP | Event.HUP)
_ERROR = int(Event.ERR)

_epoll._use_events(Event)
