"""A child made without fork handlers has copies of its own, too: nothing that it does affects the parent.

By _Fork() of the C library, or by the system call itself: as another extension module may do.
"""

import ctypes
import errno
import os
import select
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fds import Pipe, open_fds
from support.kernel import fdinfo_lines, rebuild
from support.processes import SANITIZED, fork, in_child
from support.threads import until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

if SANITIZED:
    pytest.skip("a sanitizer has locks that only fork handlers free", allow_module_level=True)
if tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) < (4, 14):
    pytest.skip("MADV_WIPEONFORK is of Linux 4.14", allow_module_level=True)

# Keeps the GIL: the child's only thread has it.
LIBC = ctypes.PyDLL(None, use_errno=True)
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]


def by_libc() -> int:
    return int(LIBC._Fork())


def by_syscall() -> int:
    zero = ctypes.c_long(0)
    return int(LIBC.syscall(ctypes.c_long(SYS_CLONE), ctypes.c_long(signal.SIGCHLD), zero, zero, zero, zero))


RAW_FORKS = {"clone": by_syscall, **({"_Fork": by_libc} if hasattr(LIBC, "_Fork") else {})}
raw_forks = pytest.mark.parametrize("raw_fork", RAW_FORKS.values(), ids=RAW_FORKS)


def in_raw_child(raw_fork: Callable[[], int], program: Callable[[], object], seconds: int = 20) -> str:
    """Run a function in such a child; return its traceback, or how the child ended, or nothing."""
    reader, writer = os.pipe()
    child = raw_fork()
    assert child >= 0, os.strerror(ctypes.get_errno())
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            os.close(reader)
            try:
                program()
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    status = os.waitpid(child, 0)[1]
    return text or (f"status {status}" if status else "")


@pytest.fixture(params=[False, True], ids=["private", "fileno() was called"], autouse=True)
def public(request: pytest.FixtureRequest, ep: Epoll) -> None:
    if request.param:
        assert ep.fileno() >= 0


def deeds(ep: Epoll, live: int, other: int) -> dict[str, Callable[[], object]]:
    def rebuild_it() -> None:
        rebuild(ep)
        assert ep.poll(0) == [("live", Event.IN)]

    def unregister() -> None:
        ep.unregister(live)
        assert ep.poll(0) == []

    def modify() -> None:
        ep.modify(live, Event.OUT, "changed")
        assert ep.poll(0) == [("changed", Event.OUT)]

    def register() -> None:
        ep.register(other, Event.OUT, "other")
        assert sorted(ep.poll(0)) == [("live", Event.IN), ("other", Event.OUT)]

    return {
        "rebuild": rebuild_it,
        "unregister": unregister,
        "modify": modify,
        "register": register,
        "rearm": lambda: ep.rearm(live),
        "close": lambda: ep.close(),
        "nothing": lambda: None,
        "poll": lambda: ep.poll(0)[0] == ("live", Event.IN),
        "fileno": lambda: ep.fileno(),
        "drop": lambda: list(zip(ep.wait(0), [], strict=False)),
    }


@pytest.mark.parametrize("deed", deeds(None, 0, 0))  # type: ignore[arg-type]
@raw_forks
def test_a_child_does_not_affect_the_parent(
    ep: Epoll, eventfd: Eventfd, raw_fork: Callable[[], int], deed: str
) -> None:
    live, other, edge = eventfd(1), eventfd(), eventfd(1)
    ep.register(edge, Event.IN | Event.ET, "edge")
    ep.poll(0)
    ep.register(live, Event.IN, "live")
    before, fds = fdinfo_lines(ep), open_fds()
    does = deeds(ep, live, other)[deed]

    def child() -> None:
        if deed in ("unregister", "modify", "register", "rebuild"):
            ep.unregister(edge)
        does()

    assert in_raw_child(raw_fork, child) == ""
    assert fdinfo_lines(ep) == before
    assert open_fds() == fds
    assert ep.poll(0) == [("live", Event.IN)]
    os.eventfd_write(edge, 1)
    assert sorted(ep.poll(0)) == [("edge", Event.IN), ("live", Event.IN)]
    ep.unregister(live)


@raw_forks
def test_a_childs_waker_is_the_parents_too(ep: Epoll, raw_fork: Callable[[], int]) -> None:
    with pyepoll.Waker() as waker:
        ep.register(waker, Event.IN, "waker")

        def child() -> None:
            waker.wake()
            assert ep.poll(0) == [("waker", Event.IN)]
            ep.unregister(waker)

        assert in_raw_child(raw_fork, child) == ""
        assert ep.poll(0) == [("waker", Event.IN)]


@pytest.mark.parametrize("first", ["read", "fileno"])
@raw_forks
def test_a_childs_signals_are_its_own(ep: Epoll, raw_fork: Callable[[], int], first: str) -> None:
    """Those that arrive before its first use, too; and it takes none of the parent's."""
    with pyepoll.Signals(signal.SIGUSR1, signal.SIGUSR2) as signals:
        ep.register(signals, Event.IN, "signals")
        os.kill(os.getpid(), signal.SIGUSR1)

        def child() -> None:
            os.kill(os.getpid(), signal.SIGUSR2)
            if first == "fileno":
                assert select.select([signals], [], [], 0)[0] == [signals]
            assert signals.read() == [signal.SIGUSR2]
            assert select.select([signals], [], [], 0)[0] == []
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.read() == [signal.SIGUSR1]

        def idle_child() -> None:
            os.kill(os.getpid(), signal.SIGUSR2)

        assert in_raw_child(raw_fork, idle_child) == ""
        assert in_raw_child(raw_fork, child) == ""
        assert ep.poll(0) == [("signals", Event.IN)]
        assert signals.read() == [signal.SIGUSR1]
        assert ep.poll(0) == []


@pytest.mark.parametrize("public", [False, True], ids=["private", "fileno() was called"])
@raw_forks
def test_a_childs_epoll_watches_the_childs_signals(
    ep: Epoll, raw_fork: Callable[[], int], public: bool
) -> None:
    """Also where the epoll is used first."""
    with pyepoll.Signals(signal.SIGUSR1) as signals:
        ep.register(signals, Event.IN, "signals")
        if public:
            ep.fileno()
        os.kill(os.getpid(), signal.SIGUSR1)  # the parent's, and not read yet

        def child() -> None:
            assert ep.poll(0) == []
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGUSR1)
                assert ep.poll(0) == [("signals", Event.IN)]
                assert signals.read() == [signal.SIGUSR1]
                assert ep.poll(0) == []

        report = in_raw_child(raw_fork, child)
        # Read in any case: close() would send it again.
        assert (report, ep.poll(0), signals.read()) == ("", [("signals", Event.IN)], [signal.SIGUSR1])


@raw_forks
def test_a_grandchild_has_signals_of_its_own(raw_fork: Callable[[], int]) -> None:
    """The thread that made the object is of another process, as where its number was reused."""
    with pyepoll.Signals(signal.SIGUSR1) as signals:

        def grandchild() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert signals.read() == [signal.SIGUSR1]

        def child() -> None:
            assert in_child(grandchild) == ""

        assert in_raw_child(raw_fork, child) == ""
        assert signals.read() == []


@raw_forks
def test_an_fd_that_a_child_has_reused_stays_as_it_is(raw_fork: Callable[[], int], pipe: Pipe) -> None:
    with pyepoll.Signals(signal.SIGUSR1) as signals:
        number = signals.fileno()

        def child() -> None:
            os.dup2(pipe.write, number)
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(OSError, match="not its eventfd"):
                signals.read()
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signals.close()
            os.write(number, b"x")

        assert in_raw_child(raw_fork, child) == ""
        assert os.read(pipe.read, 100) == b"x"


@raw_forks
def test_a_grandchild_has_its_own_copy(ep: Epoll, eventfd: Eventfd, raw_fork: Callable[[], int]) -> None:
    live = eventfd(1)
    ep.register(live, Event.IN, "live")
    before = fdinfo_lines(ep)

    def grandchild() -> None:
        assert ep.poll(0) == [("live", Event.IN)]
        ep.unregister(live)

    def child(used: bool, again: Callable[[], int]) -> None:
        if used:
            assert ep.poll(0) == [("live", Event.IN)]
        assert in_raw_child(again, grandchild) == ""
        assert ep.poll(0) == [("live", Event.IN)]
        ep.unregister(live)

    for used in (False, True):
        for again in (raw_fork, fork):
            assert in_raw_child(raw_fork, lambda: child(used, again)) == ""  # noqa: B023
            assert fdinfo_lines(ep) == before
            assert ep.poll(0) == [("live", Event.IN)]


@raw_forks
def test_copies_in_a_child_watch_each_other(ep: Epoll, eventfd: Eventfd, raw_fork: Callable[[], int]) -> None:
    live = eventfd(1)
    with Epoll() as inner:
        inner.register(live, Event.IN, "live")
        ep.register(inner, Event.IN, "inner")

        def child() -> None:
            assert ep.poll(0) == [("inner", Event.IN)]
            inner.unregister(live)
            assert ep.poll(0) == []

        assert in_raw_child(raw_fork, child) == ""
        assert ep.poll(0) == [("inner", Event.IN)]
        assert inner.poll(0) == [("live", Event.IN)]


@raw_forks
def test_a_child_does_not_wake_the_parents_waiter(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor, raw_fork: Callable[[], int]
) -> None:
    """The child closes an fd on which a thread of the parent waits."""
    live = eventfd()
    ep.register(live, Event.IN, "live")
    waiting = pool.submit(ep.poll)
    until(lambda: waiters() == 1)
    assert in_raw_child(raw_fork, ep.close) == ""
    assert waiters() == 1
    assert not waiting.done()
    os.eventfd_write(live, 1)
    assert waiting.result(10) == [("live", Event.IN)]


@raw_forks
def test_an_fd_reused_in_the_child_raises_ebadf(
    ep: Epoll, eventfd: Eventfd, raw_fork: Callable[[], int]
) -> None:
    ep.register(eventfd(1), Event.IN, "live")
    fd = ep._public_fd()

    def child() -> None:
        os.close(fd)
        other = os.eventfd(5)
        if other != fd:
            os.dup2(other, fd)
        try:
            ep.poll(0)
            raise AssertionError("it is not ours any more")
        except OSError as error:
            assert error.errno == errno.EBADF
        ep.close()
        assert os.eventfd_read(fd) == 5

    assert in_raw_child(raw_fork, child) == ""
    assert ep.poll(0) == [("live", Event.IN)]
