"""EpollSelector on fds that were closed and now refer to other files, as asyncio uses a selector."""

import asyncio
import contextlib
import errno
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest
from support.fds import Pipe
from support.kernel import agree
from support.processes import run
from support.threads import together

import pyepoll
from pyepoll import EpollSelector, Event

BOTH = EVENT_READ | EVENT_WRITE
Eventfd = Callable[..., int]


class File:
    """An object whose fileno() may change."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


@pytest.fixture
def sel() -> Iterator[EpollSelector]:
    with EpollSelector() as sel:
        yield sel


@pytest.fixture
def reused(eventfd: Eventfd) -> Iterator[Callable[[bool], int]]:
    """Make an fd that is registered for an idle file and refers to a ready one after ``reuse``."""
    made: list[int] = []

    def make(keep_open: bool) -> int:
        idle = os.eventfd(0)
        made.append(os.dup(idle))
        if keep_open:
            made.append(idle)
            return made[-2]
        os.close(idle)
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def refer_to_a_ready_file(fd: int) -> None:
    ready = os.eventfd(1)
    os.dup2(ready, fd)
    os.close(ready)


def is_whole(sel: EpollSelector) -> bool:
    """Whether the keys are the registrations, and these are the kernel's."""
    core: pyepoll.Epoll[Any] = sel._selector
    return {fd: data for fd, (_, data) in core.registrations.items()} == sel._fd_to_key and agree(core)


@pytest.mark.parametrize("events", [EVENT_READ, BOTH, EVENT_WRITE])
@pytest.mark.parametrize("stays_open", [False, True], ids=["closed", "duplicated"])
def test_modify_registers_the_new_file(
    sel: EpollSelector, reused: Callable[[bool], int], events: int, stays_open: bool
) -> None:
    fd = reused(stays_open)
    sel.register(fd, EVENT_READ, "old")
    refer_to_a_ready_file(fd)
    key = sel.modify(fd, events, "new")
    assert key == (fd, fd, events, "new")
    assert sel.get_key(fd) is key
    assert [(each.data, ready) for each, ready in sel.select(0)] == [("new", events)]
    assert agree(sel._selector) or stays_open
    assert sel.unregister(fd) is key
    assert sel.select(0) == []


def test_modify_of_an_object_registers_its_new_file(sel: EpollSelector, reused: Any) -> None:
    file = File(reused(False))
    sel.register(file, EVENT_READ, "old")
    refer_to_a_ready_file(file.fd)
    assert sel.modify(file, EVENT_READ, "new").fileobj is file
    assert [key.data for key, _ in sel.select(0)] == ["new"]
    assert is_whole(sel)


@pytest.mark.parametrize("flags", [Event.ET, Event.ONESHOT, Event.RDHUP, Event.EXCLUSIVE])
def test_modify_registers_the_new_file_with_the_same_flags(
    sel: EpollSelector, reused: Any, flags: Event
) -> None:
    fd = reused(False)
    sel.register(fd, EVENT_READ, "old", flags)
    refer_to_a_ready_file(fd)
    sel.modify(fd, EVENT_READ, "new")
    assert sel._selector.registrations[fd][0] == Event.IN | flags
    assert [key.data for key, _ in sel.select(0)] == ["new"]
    assert is_whole(sel) or flags == Event.ONESHOT  # disarmed


def test_modify_finds_the_new_file_of_a_lost_registration(sel: EpollSelector) -> None:
    """The core has noticed that the fd was closed before it was reused."""
    keep = os.eventfd(1)
    fd = os.dup(keep)
    sel.register(fd, EVENT_READ, "old")
    os.close(fd)
    for _ in range(20):
        sel.select(0)
    assert sel._selector.stats().lost_registrations == 1
    os.dup2(keep, fd)
    sel.modify(fd, EVENT_READ, "new")
    assert [key.data for key, _ in sel.select(0)] == ["new"]
    os.close(fd)
    os.close(keep)


@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
@pytest.mark.parametrize("given", ["int", "object"])
def test_modify_registers_the_file_of_the_given_object(
    sel: EpollSelector, events: int, given: str, eventfd: Eventfd
) -> None:
    """The key is that of a closed object; the fd, or the object with this fd, is another file."""
    ready = eventfd(1)
    a, b = socket.socketpair()
    fd = a.fileno()
    sel.register(a, EVENT_READ, "old")
    a.close()
    b.close()
    os.dup2(ready, fd)
    fileobj = fd if given == "int" else File(fd)
    try:
        key = sel.modify(fileobj, events, "new")
        assert key == (fileobj, fd, events, "new")
        assert sel.select(0) == [(key, events)]
        assert is_whole(sel)
    finally:
        os.close(fd)


@pytest.mark.parametrize("events", [EVENT_READ, BOTH])
def test_modify_leaves_the_error_where_the_object_is_closed(
    sel: EpollSelector, events: int, eventfd: Eventfd
) -> None:
    """The file that its fd refers to now is not the object's."""
    ready = eventfd(1)
    a, b = socket.socketpair()
    fd = a.fileno()
    sel.register(a, EVENT_READ, "old")
    a.close()
    b.close()
    os.dup2(ready, fd)
    try:
        with pytest.raises(FileNotFoundError, match="not registered"):
            sel.modify(a, events, "new")
        assert sel.select(0) == []
        assert len(sel.get_map()) == 0
        assert is_whole(sel)
    finally:
        os.close(fd)


def test_modify_of_an_fd_registers_the_file_where_fileno_has_changed(sel: EpollSelector, reused: Any) -> None:
    fd = reused(False)
    file = File(fd)
    sel.register(file, EVENT_READ, "old")
    refer_to_a_ready_file(fd)
    file.fd = -1
    assert sel.modify(fd, EVENT_READ, "new").fileobj == fd
    assert [key.data for key, _ in sel.select(0)] == ["new"]
    assert is_whole(sel)


def test_an_exception_of_fileno_is_passed_on(sel: EpollSelector, reused: Any) -> None:
    class Interrupted(File):
        def fileno(self) -> int:
            if self.fd < 0:
                raise KeyboardInterrupt
            return self.fd

    fd = reused(False)
    file = Interrupted(fd)
    sel.register(file, EVENT_READ, "old")
    refer_to_a_ready_file(fd)
    file.fd = -1
    with pytest.raises(KeyboardInterrupt):
        sel.modify(fd, BOTH, "new")
    assert is_whole(sel)


def test_modify_of_the_data_of_a_closed_fd_changes_the_key(sel: EpollSelector, closed_fd: int) -> None:
    """As in selectors, which makes no system call then."""
    os.dup2(0, closed_fd)
    os.close(closed_fd)
    fd = os.eventfd(0)
    sel.register(fd, EVENT_READ, "old")
    os.close(fd)
    assert sel.modify(fd, EVENT_READ, "new").data == "new"
    assert sel.get_key(fd).data == "new"
    with pytest.raises(OSError, match="not open") as caught:
        sel.modify(fd, BOTH, "new")
    assert caught.value.errno == errno.EBADF


def test_modify_reports_a_file_that_cannot_be_watched(sel: EpollSelector, reused: Any) -> None:
    fd = reused(False)
    sel.register(fd, EVENT_READ, "old")
    with open(__file__) as file:
        os.dup2(file.fileno(), fd)
    with pytest.raises(PermissionError, match="regular file"):
        sel.modify(fd, EVENT_READ, "new")
    assert len(sel.get_map()) == 0
    assert is_whole(sel)


def test_a_change_of_data_is_one_system_call_and_no_change_is_none() -> None:
    """As a sandbox that forbids epoll_ctl shows."""
    words = run(
        """
        import errno, os, selectors
        from support.seccomp import deny
        from pyepoll import EpollSelector, Event

        sel = EpollSelector()
        fds = [os.eventfd(1) for _ in range(4)]
        for fd, flags in zip(fds, (0, Event.ET, Event.PRI, Event.EXCLUSIVE)):
            sel.register(fd, selectors.EVENT_READ, "old", flags)
        assert len(sel.select(0)) == 4
        deny("epoll_ctl", errno.EPERM)
        for fd in fds[0], fds[2], fds[3]:
            assert sel.modify(fd, selectors.EVENT_READ, "old") is sel.get_key(fd)
        sel.modify(fds[2], selectors.EVENT_READ, "old", Event.PRI)
        for fd, flags in (fds[0], None), (fds[1], None), (fds[2], 0), (fds[3], None):
            try:
                sel.modify(fd, selectors.EVENT_READ, "new", flags)
            except PermissionError:
                print("refused", len(sel.get_map()))
        """
    )
    assert words.splitlines() == ["refused 3", "refused 2", "refused 1", "refused 0"]


@pytest.mark.parametrize("call", ["unregister", "modify"])
@pytest.mark.parametrize("by_object", [True, False], ids=["object", "int"])
def test_an_object_with_another_fd_leaves_unrelated_keys(
    sel: EpollSelector, eventfd: Eventfd, call: str, by_object: bool
) -> None:
    """The object is registered under its earlier fd; the fd that it has now was registered by others."""
    file = File(eventfd(1))
    other = eventfd(1)
    own = sel.register(file, EVENT_READ, "own")
    unrelated = sel.register(File(other) if by_object else other, EVENT_READ, "unrelated")
    file.fd = other
    if call == "unregister":
        assert sel.unregister(file) is own
        assert [key for key, _ in sel.select(0)] == [unrelated]
    else:
        assert sel.modify(file, EVENT_READ, "changed").fd == own.fd
        assert sorted(key.data for key, _ in sel.select(0)) == ["changed", "unrelated"]
    assert sel.get_key(other) is unrelated
    assert is_whole(sel)


@pytest.mark.parametrize("objects", [True, False], ids=["beside objects", "ints alone"])
def test_an_object_stands_for_its_fd(sel: EpollSelector, eventfd: Eventfd, objects: bool) -> None:
    """As in selectors: it need not be the one that was registered."""
    if objects:
        sel.register(File(eventfd(0)), EVENT_READ)
    first, second = eventfd(1), eventfd(1)
    key = sel.register(first, EVENT_READ)
    assert sel.unregister(File(first)) is key
    key = sel.register(File(second), EVENT_READ)
    assert sel.unregister(File(second)) is key
    assert len(sel.get_map()) == objects


def test_a_subclass_of_epoll_is_asked(reused: Any) -> None:
    """Methods that a subclass overrides make the calls."""
    calls: list[str] = []

    class Core(pyepoll.Epoll[Any]):
        def register(self, *arguments: Any) -> None:  # type: ignore[override]
            calls.append("register")
            super().register(*arguments)

        def modify(self, *arguments: Any) -> None:
            calls.append("modify")
            super().modify(*arguments)

    class Mine(EpollSelector):
        _selector_cls = Core

    fd = reused(False)
    with Mine() as sel:
        sel.register(fd, EVENT_READ, "old")
        refer_to_a_ready_file(fd)
        sel.modify(fd, EVENT_READ, "new")
        assert [key.data for key, _ in sel.select(0)] == ["new"]
        assert is_whole(sel)
    assert calls == ["register", "modify", "register"]


def test_modify_does_not_undo_an_unregister(sel: EpollSelector, reused: Any) -> None:
    """Of two threads, one unregisters the reused fd: nothing may be registered in the end if it succeeds."""
    fd = reused(False)
    for turn in range(200):
        refer_to_a_ready_file(fd)
        sel.register(fd, EVENT_READ, "old")
        refer_to_a_ready_file(fd)
        removed: list[str] = []

        def remove(removed: list[str] = removed) -> None:
            with contextlib.suppress(KeyError):
                removed.append(sel.unregister(fd).data)

        def change(turn: int = turn) -> None:
            with contextlib.suppress(KeyError, FileNotFoundError):
                sel.modify(fd, BOTH if turn % 2 else EVENT_READ, "new")

        assert together(remove, change) == []
        assert len(sel.get_map()) == (not removed)
        assert is_whole(sel)
        with contextlib.suppress(KeyError):
            sel.unregister(fd)


@pytest.mark.parametrize("kind", [EpollSelector, selectors.EpollSelector], ids=["ours", "stock"])
def test_a_loop_reads_from_the_file_that_has_the_fd_now(kind: Any, request: pytest.FixtureRequest) -> None:
    """A socket is closed behind asyncio's back; the next one gets its fd and is added as a reader."""
    if kind is selectors.EpollSelector:
        request.applymarker(pytest.mark.xfail(raises=(TimeoutError, OSError), reason="is never called"))

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        old, old_peer = socket.socketpair()
        loop.add_reader(old.fileno(), print)
        fd = old.fileno()
        old.close()
        new, new_peer = socket.socketpair()
        with old_peer, new, new_peer:
            assert new.fileno() == fd
            received = loop.create_future()
            loop.add_reader(fd, lambda: received.set_result(new.recv(10)))
            new_peer.send(b"data")
            async with asyncio.timeout(0.5 if kind is selectors.EpollSelector else 20):
                data: bytes = await received
            loop.remove_reader(fd)
            return data

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(kind())) as runner:
        assert runner.run(main()) == b"data"


def test_pipes_that_take_each_others_fds(sel: EpollSelector) -> None:
    """A program that never unregisters: every pipe is reported under the data that it was given last."""
    for turn in range(100):
        pipe = Pipe()
        if pipe.read in sel.get_map():
            sel.modify(pipe.read, EVENT_READ, turn)
        else:
            sel.register(pipe.read, EVENT_READ, turn)
        os.write(pipe.write, b"x")
        assert [key.data for key, _ in sel.select(0)] == [turn]
        pipe.close()
