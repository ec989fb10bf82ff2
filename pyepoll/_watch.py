"""The class of pyepoll.aio.watch: any epoll event, from any asyncio event loop."""

import asyncio
import errno
import fcntl
import operator
import os
import stat
import warnings
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Self

from ._core import Epoll, refuse_to_copy
from ._event import Event

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["watch"]

_REFUSED = int(Event.ONESHOT | Event.EXCLUSIVE)
_READS_AND_WRITES = int(
    Event.IN | Event.OUT | Event.RDNORM | Event.RDBAND | Event.WRNORM | Event.WRBAND | Event.MSG
)


# The kernel polls a file more often than it reports its events: when the file is registered or modified,
# before a wait reports it, and through each epoll that watches the epoll. Some files of procfs (mounts,
# pressure/*, sys/*) answer the first poll after a change with PRI, and no other. So with an epoll in that
# of the loop:
#
#     the file changes            wakes the epoll, and this the loop's epoll, without a poll
#     the loop's wait             polls the file: PRI, so the epoll is ready
#     _look(), Epoll.poll(0)      polls the file: nothing
#
# There, an epoll that is ready and has no event means PRI. The loop must watch the epoll all the time:
# add_reader() would poll the file, and the loop's wait then find nothing. All other files keep their state
# until it is read. The files in question are regular; only procfs, sysfs and cgroups have regular files that
# epoll takes.


class watch(AsyncIterator[Event]):
    """Watch fd for the events of mask; an asynchronous iterator of the events, in the running event loop::

        async with pyepoll.aio.watch(sock, Event.RDHUP) as events:
            async for event in events:
                ...

    fd: an fd or an object with fileno(). The object is kept until the watch is closed; it is not closed.
    mask: any events, as :meth:`pyepoll.Epoll.register` takes them; ERR and HUP are always among them. With
    ET, each change is reported once. Without ET, the state of the file is looked at while a task waits for
    the next event, and at no other time, so that a slow consumer costs nothing. A file of procfs or sysfs
    whose changes are reported as PRI reports each change once in any case; ask for PRI alone there, and read
    the file after ``async with`` has been entered, so that no change is missed between the two.

    The loop may be any event loop with ``add_reader``: asyncio's own, pyepoll's or uvloop's. A file may be
    watched several times, and beside a transport that reads from it. Each watch takes two fds. It is used
    in the thread of its loop, by one task at a time. A task that stops waiting, cancelled or timed out, loses
    no event: the next wait reports it.

    Close the watch before its file: leave ``async with``, or call :meth:`close`. If the file is closed first,
    the kernel reports nothing more, not even to a task that waits; the next wait raises OSError. A watch that
    is collected unclosed gives a ResourceWarning.

    Raises RuntimeError when no event loop is running; ValueError for ONESHOT, EXCLUSIVE and unknown bits;
    OSError: EMFILE or ENFILE when no fd is left, and what else :meth:`pyepoll.Epoll.register` raises.
    """

    __slots__ = (
        "__weakref__",
        "_edge",  # each change is reported once; the loop watches the epoll all the time
        "_epoll",  # of its own, with this one registration: the kernel has one mask for each fd in an epoll
        "_events",  # reported, and not returned yet
        "_fd",
        "_file",
        "_loop",
        "_mask",
        "_pid",
        "_reads",  # the loop watches the epoll
        "_vanishes",  # the loop, which asks first, may be the only one to see a change
        "_waiter",
    )

    def __init__(self, fd: "FileDescriptorLike", mask: int) -> None:
        loop = asyncio.get_running_loop()
        mask = operator.index(mask)
        if mask & _REFUSED:
            raise ValueError("ONESHOT and EXCLUSIVE have no use here: each wait of a watch arms it again")
        epoll = Epoll[object]()
        try:
            epoll.register(fd, mask)
            (self._fd,) = epoll.registrations
            pseudo = bool(mask & Event.PRI) and stat.S_ISREG(os.fstat(self._fd).st_mode)
            if pseudo:
                epoll.modify(self._fd, mask | Event.ET)
        except BaseException:
            epoll.close()
            raise
        self._edge = pseudo or bool(mask & Event.ET)
        self._vanishes = pseudo and not mask & _READS_AND_WRITES
        self._epoll = epoll
        self._file = fd
        self._mask = Event(mask)
        self._loop = loop
        self._pid = os.getpid()
        self._events = Event(0)
        self._reads = False
        self._waiter: asyncio.Future[None] | None = None
        if self._edge:
            try:
                self._start()
            except BaseException:
                epoll.close()
                raise

    async def __anext__(self) -> Event:
        """Wait for the next events and return them.

        Raises StopAsyncIteration when the watch is closed, also during the wait; RuntimeError when another
        task waits, or in another event loop than the one of the watch; OSError: EBADF when the fd is closed,
        and what the loop's ``add_reader`` raises; the exceptions of fileno().
        """
        if self._epoll.closed:
            raise StopAsyncIteration
        if self._waiter is not None:
            raise RuntimeError(f"another task waits for {self!r}")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"{self!r} belongs to another event loop")
        self._check_fd()
        if not self._events:
            await self._wait()
        events, self._events = self._events, Event(0)
        return events

    async def __aenter__(self) -> Self:
        """Return the watch itself, which reports every change from now on."""
        if self._vanishes:
            await asyncio.sleep(0)  # add_reader() of uvloop takes effect at the end of the turn.
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the watch."""
        self.close()

    async def aclose(self) -> None:
        """Close the watch: :meth:`close`, for ``contextlib.aclosing``."""
        self.close()

    def close(self) -> None:
        """Close the watch, not its file. A task that waits for it ends its loop; a second close does nothing.

        Raises OSError as :meth:`pyepoll.Epoll.close`, when the watch is closed all the same.
        """
        if not self._epoll.closed:
            self._stop()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            self._epoll.close()

    def __del__(self) -> None:
        epoll: Epoll[object] | None = getattr(self, "_epoll", None)
        if epoll is None or epoll.closed:
            return
        ours = self._pid == os.getpid()
        if ours:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        if ours and self._reads and not self._loop.is_closed():
            try:
                # Garbage is collected in any thread.
                self._loop.call_soon_threadsafe(_release, self._loop, epoll)
            except RuntimeError:  # The loop was closed meanwhile.
                epoll.close()
        else:
            epoll.close()

    def __repr__(self) -> str:
        """Return the fd and the mask, or that the watch is closed."""
        if self._epoll.closed:
            return "<pyepoll.aio.watch closed>"
        return f"<pyepoll.aio.watch fd={self._fd} mask={self._mask}>"

    __reduce_ex__ = refuse_to_copy

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            self._start()
            await self._waiter
        finally:
            self._waiter = None
            if not self._edge:
                self._stop()
        if self._epoll.closed:
            raise StopAsyncIteration

    def _check_fd(self) -> None:
        """Raise OSError if the fd is closed, or no longer that of the file object."""
        if not isinstance(self._file, int) and self._file.fileno() != self._fd:
            raise OSError(
                errno.EBADF, f"watch fd {self._fd}: {os.strerror(errno.EBADF)} (its file was closed)"
            )
        fcntl.fcntl(self._fd, fcntl.F_GETFD)

    def _start(self) -> None:
        if not self._reads:
            self._loop.add_reader(self._epoll.fileno(), _look, weakref.ref(self))
            self._reads = True

    def _stop(self) -> None:
        # In the child of a fork, the loop's epoll is the parent's.
        if self._reads and not self._loop.is_closed() and self._pid == os.getpid():
            self._loop.remove_reader(self._epoll.fileno())
        self._reads = False

    def _look(self) -> None:
        """Fetch the events that the loop has found."""
        if not self._edge:
            self._stop()
        for _, events in self._epoll.poll(0):
            self._events |= events
        if not self._events and self._vanishes:
            self._events = Event.PRI
        if self._waiter is not None and not self._waiter.done():
            if self._events:
                self._waiter.set_result(None)
            else:
                self._start()


def _look(reference: "weakref.ref[watch]") -> None:
    """Look at a watch, unless it has been collected: the loop does not keep it alive."""
    found = reference()
    if found is not None:
        found._look()


def _release(loop: asyncio.AbstractEventLoop, epoll: Epoll[object]) -> None:
    loop.remove_reader(epoll.fileno())
    epoll.close()
