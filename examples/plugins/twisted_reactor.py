"""A reactor for Twisted on ``pyepoll.Epoll``.

    import twisted_reactor
    twisted_reactor.install()
    from twisted.internet import reactor

Install it before the first import of ``twisted.internet.reactor``, as any reactor.

An event contains the object that reads or writes: no table of objects is needed, and an event of an object
that was removed earlier in the same turn is skipped. Files, which the kernel refuses to watch, are handled by
Twisted's own continuous polling, as in ``epollreactor``.
"""

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import installReactor
from twisted.internet.posixbase import PosixReactorBase, _ContinuousPolling, _PollLikeMixin
from twisted.python import log
from zope.interface import implementer

from pyepoll import Epoll, Event


@implementer(IReactorFDSet)
class PyepollReactor(PosixReactorBase, _PollLikeMixin):
    # Twisted's mixin that turns events into calls of doRead and doWrite reads these, and the two sets.
    _POLL_DISCONNECTED = Event.HUP | Event.ERR
    _POLL_IN = Event.IN
    _POLL_OUT = Event.OUT

    def __init__(self) -> None:
        self.epoll: Epoll[tuple[int, Any]] = Epoll()
        self._reads: set[int] = set()
        self._writes: set[int] = set()
        self._always = _ContinuousPolling(self)
        super().__init__()

    def addReader(self, reader: Any) -> None:
        if not self._watch(reader, self._reads):
            self._always.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        if not self._watch(writer, self._writes):
            self._always.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        if self._always.isReading(reader):
            self._always.removeReader(reader)
        else:
            self._forget(reader, self._reads)

    def removeWriter(self, writer: Any) -> None:
        if self._always.isWriting(writer):
            self._always.removeWriter(writer)
        else:
            self._forget(writer, self._writes)

    def removeAll(self) -> list[Any]:
        return [*self._removeAll(self._of(self._reads), self._of(self._writes)), *self._always.removeAll()]

    def getReaders(self) -> list[Any]:
        return [*self._of(self._reads), *self._always.getReaders()]

    def getWriters(self) -> list[Any]:
        return [*self._of(self._writes), *self._always.getWriters()]

    def doIteration(self, timeout: float | None) -> None:
        for (fd, selectable), events in self.epoll.wait(timeout):
            log.callWithLogger(selectable, self._doReadOrWrite, selectable, fd, events)

    def _selectable(self, fd: int) -> Any:
        return self.epoll.registrations[fd][1][1]

    def _of(self, fds: Iterable[int]) -> list[Any]:
        return [self._selectable(fd) for fd in fds]

    def _mask(self, fd: int) -> Event:
        return (Event.IN if fd in self._reads else Event(0)) | (Event.OUT if fd in self._writes else Event(0))

    def _watch(self, selectable: Any, fds: set[int]) -> bool:
        """Return whether the kernel can watch it."""
        fd = selectable.fileno()
        if fd in fds:
            return True
        known = fd in self._reads or fd in self._writes
        fds.add(fd)
        try:
            change = self.epoll.modify if known else self.epoll.register
            change(fd, self._mask(fd), (fd, selectable))
        except BaseException as error:
            fds.remove(fd)
            if not isinstance(error, PermissionError):
                raise
            return False
        return True

    def _forget(self, selectable: Any, fds: set[int]) -> None:
        fd = selectable.fileno()
        if fd == -1:  # It is closed already.
            fd = next((each for each in fds if self._selectable(each) is selectable), -1)
        if fd not in fds:
            return
        fds.remove(fd)
        if mask := self._mask(fd):
            self.epoll.modify(fd, mask)
        else:
            self.epoll.unregister(fd)


def install() -> None:
    installReactor(PyepollReactor())
