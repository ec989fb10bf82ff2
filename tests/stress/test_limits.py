"""At a limit, the error names it; nothing is lost, and once there is room, the calls work again."""

import errno
import math
import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fds import no_fd_left, open_fds
from support.kernel import agree, fdinfo_lines
from support.processes import SANITIZED, run
from support.seccomp import deny
from support.threads import until, waiters

import pyepoll
from pyepoll import Event, _epoll, raw

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

MOST_WATCHES = 10_000_000
"""A machine with more memory allows more watches than are worth being used up here."""


def stock(reason: str) -> Any:
    return pytest.param(select.epoll, marks=pytest.mark.xfail(strict=True, reason=reason))


# ENOSPC. The limit is per user, so a child with a uid of its own uses it up.

AS_ANOTHER_USER = """
    import errno, os, resource, select, sys, threading, time
    from support.kernel import agree, fdinfo_lines
    from support.threads import until
    import pyepoll
    from pyepoll import Event, raw

    os.setgroups([])
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)
    live, other = os.eventfd(1), os.eventfd(0)
    with_stale, closing = pyepoll.Epoll(), pyepoll.Epoll()
    with_stale.register(live, Event.IN, "live")
    stale_fd = os.eventfd(1)
    keep = os.dup(stale_fd)
    with_stale.register(stale_fd, Event.IN, "stale")
    os.close(stale_fd)
    try:
        with_stale.unregister(stale_fd)
    except OSError as error:
        assert error.errno == errno.EBADF
    closing.register(other, Event.IN)

    number = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 600
    watched, quiet = [os.dup(other) for _ in range(number)], []
    try:
        while True:
            quiet.append(raw.epoll_create1(raw.EPOLL_CLOEXEC))
            for fd in watched:
                raw.epoll_ctl(quiet[-1], raw.EPOLL_CTL_ADD, fd)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    """


@pytest.mark.long
@pytest.mark.lasts(120)
def test_max_user_watches_raises_enospc() -> None:
    """All the watches that a user may have, for real."""
    with open("/proc/sys/fs/epoll/max_user_watches") as file:
        limit = int(file.read())
    if os.geteuid() != 0:
        pytest.skip("only the superuser can become a user without watches")
    if limit > MOST_WATCHES:
        pytest.skip(f"a user may watch {limit} files here")
    program = """
    # A full epoll names the limit in its error; existing registrations can be changed.
    for full in (with_stale.register, pyepoll.Epoll().register, select.epoll().register):
        try:
            full(other, Event.IN)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            print(error)
    assert other not in with_stale
    with_stale.modify(live, Event.IN | Event.ONESHOT, "live")
    with_stale.modify(live, Event.IN, "live")

    # There is no room for the rebuild: it is postponed, at no cost.
    end, waits = time.monotonic() + 0.1, 0
    while time.monotonic() < end:
        assert with_stale.poll(0) == [("live", Event.IN)]
        waits += 1
    assert waits < 300, waits
    assert with_stale.stats().rebuilds == 0 and len(fdinfo_lines(with_stale)) == 2

    # Waiters are woken all the same.
    woken = []
    def wait():
        try:
            closing.poll()
        except ValueError:
            woken.append(True)
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    # A process that has changed its uid may not read its own /proc/self/task/*/syscall.
    until(lambda: closing.stats().waits == 4)
    time.sleep(0.1)
    closing.close()
    for thread in threads:
        thread.join(10)
    assert len(woken) == 4

    # With room again, everything goes on.
    os.close(quiet.pop())
    os.close(quiet.pop())
    for _ in range(5):
        assert with_stale.poll(0) == [("live", Event.IN)]
    assert with_stale.stats().rebuilds == 1 and agree(with_stale)
    with_stale.register(other, Event.IN)
    assert agree(with_stale)
    """
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(AS_ANOTHER_USER + program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == 3
    for line in printed[:2]:
        assert str(limit) in line
        assert "max_user_watches" in line
        assert "register fd" in line
    assert str(limit) not in printed[2], "stock says no more than that there is no space left"


def in_a_thread_without(syscall: str, error: int, call: Callable[[], object]) -> None:
    """The filter ends with the thread, and so does the lack."""

    def attempt() -> None:
        deny(syscall, error)
        call()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(attempt).result()


def make_stale(ep: Epoll) -> int:
    """Leave a stale registration in it; return the fd that keeps its file open, to be closed."""
    stale_fd = os.eventfd(1)
    keep = os.dup(stale_fd)
    ep.register(stale_fd, Event.IN)
    os.close(stale_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ep.unregister(stale_fd)
    return keep


@pytest.mark.parametrize(
    ("syscall", "error"),
    [
        ("epoll_create1", errno.EMFILE),
        ("epoll_create1", errno.ENFILE),
        ("epoll_create1", errno.ENOMEM),
        ("epoll_ctl", errno.ENOSPC),
        ("epoll_ctl", errno.ENOMEM),
    ],
)
def test_a_rebuild_at_a_limit_is_postponed(ep: Epoll, eventfd: Eventfd, syscall: str, error: int) -> None:
    """Live registrations go on, and once there is room, a wait repairs."""
    live = eventfd(1)
    ep.register(live, Event.IN)
    keep = make_stale(ep)

    def polls() -> None:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            assert ep.poll(0) == [(live, Event.IN)]

    in_a_thread_without(syscall, error, polls)
    assert ep.stats().rebuilds == 0
    assert len(fdinfo_lines(ep)) == 2
    assert ep.stats().failed_rebuilds > 0
    until(lambda: ep.poll(0) == [(live, Event.IN)] and ep.stats().rebuilds == 1)
    assert ep.stats().lost_registrations == 0
    assert agree(ep)
    os.close(keep)


# EMFILE and ENFILE.

MAKERS: dict[str, Callable[[], Any]] = {
    "epoll_create1": lambda: pyepoll.Epoll[Any](),
    "eventfd": lambda: pyepoll.Waker(),
    "eventfd(CLOEXEC": lambda: pyepoll.Signals(40),
    "timerfd_create": lambda: pyepoll.Timer(),
    "pidfd_open": lambda: pyepoll.Child(os.getpid()),
    "epoll_create1(0x0)": lambda: raw.epoll_create1(0),
    "epoll_create(1)": lambda: raw.epoll_create(1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_no_free_fd_raises_emfile(name: str) -> None:
    before = open_fds()
    with no_fd_left():
        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)) as caught:
                MAKERS[name]()
            assert caught.value.errno == errno.EMFILE
            assert f"] {name}" in str(caught.value)
    assert open_fds() == before


@pytest.mark.parametrize("error", [errno.ENFILE, errno.ENOMEM])
def test_epoll_create1_errors_are_reported(error: int) -> None:
    def attempt() -> None:
        with pytest.raises(OSError, match="epoll_create1") as caught:
            pyepoll.Epoll[Any]()
        assert caught.value.errno == error

    in_a_thread_without("epoll_create1", error, attempt)
    pyepoll.Epoll[Any]().close()


def test_calls_that_need_no_fd_work_without_one(ep: Epoll, eventfd: Eventfd) -> None:
    live, other = eventfd(1), eventfd(1)
    ep.fileno()  # the first call needs one
    with no_fd_left():
        ep.register(live, Event.IN)
        ep.register(other, Event.IN | Event.WAKEUP)
        ep.modify(live, Event.IN | Event.ET, data="live")
        ep.unregister(other)
        ep.rearm(live)
        assert ep.poll(0) == [("live", Event.IN)]
        ep.rearm(live)
        assert list(ep.wait(5, sigmask=[10])) == [("live", Event.IN)]
        ep.rearm(live)
        assert next(iter(ep)) == ("live", Event.IN)
        assert len(pyepoll.Epoll[Any].fromfd(ep.fileno())) == 1
        for wrong in (ep.fileno(), 2**31 - 1):
            with pytest.raises(OSError, match=f"register fd {wrong}"):
                ep.register(wrong)
        ep.close()


# maxevents: memory follows the number of registrations, not the argument.

little_memory = pytest.mark.skipif(SANITIZED, reason="a sanitizer needs more than the process may have")


@little_memory
@pytest.mark.parametrize("cls", [pyepoll.Epoll, stock("it allocates maxevents entries")])
@pytest.mark.parametrize("maxevents", [10**8, 2**31 - 1, 2**31, 2**63, 2**100])
def test_maxevents_costs_no_memory(cls: type, maxevents: int) -> None:
    """In a process that can have 64 MiB more than it has."""
    printed = run(
        f"""
        import os, resource, sys
        import {cls.__module__.partition(".")[0]} as module
        ep = module.epoll()
        fds = [os.eventfd(1) for _ in range(100)]
        for fd in fds:
            ep.register(fd, 1)
        assert len(ep.poll(0)) == 100
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), hard))
        try:
            print(len(ep.poll(0, {maxevents})), end=" ")
            if hasattr(ep, "wait"):
                print(len(list(ep.wait(0, {maxevents}))))
            else:
                print(100)
        except Exception as error:
            print(type(error).__name__)
        """
    )
    assert printed.split() == ["100", "100"]


@pytest.mark.parametrize("maxevents", [-1, 2**31, 2**63])
def test_memory_follows_the_number_of_registrations(maxevents: int) -> None:
    """With 64 times as much ready, about 64 times as much."""
    printed = run(
        f"""
        import os, tracemalloc
        import pyepoll
        for count in (10, 64, 512):
            ep = pyepoll.Epoll()
            fds = [os.eventfd(1) for _ in range(count)]
            for fd in fds:
                ep.register(fd, 1)
            tracemalloc.start()
            for _ in range(3):
                ep.poll(0, {maxevents})
            print(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            for fd in fds:
                os.close(fd)
        """
    )
    few, some, many = map(int, printed.split())
    assert few < 16_000
    assert some < 32_000
    assert many < 200_000


@little_memory
def test_a_buffer_too_large_for_memory_raises() -> None:
    """Its capacity is the argument of its caller."""
    printed = run(
        """
        import resource
        from pyepoll import raw
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for capacity in (10**8, 2**31 // 16 - 1):
            try:
                raw.EventBuffer(capacity)
            except MemoryError:
                print("MemoryError")
        assert len(raw.EventBuffer(1000)) == 1000
        """
    )
    assert printed.split() == ["MemoryError"] * 2


# Masks.


def accepts(ep: Any, fd: int, mask: int) -> bool:
    try:
        ep.register(fd, mask)
    except (ValueError, OverflowError):
        return False
    ep.unregister(fd)
    return True


@pytest.mark.parametrize("cls", [pyepoll.Epoll, stock("it ignores unknown bits")])
def test_every_bit_is_known_or_refused(cls: Any, eventfd: Eventfd) -> None:
    known = {bit for bit in range(70) if any(event.value == 1 << bit for event in Event)}
    fd = eventfd()
    with cls() as ep:
        assert {bit for bit in range(70) if accepts(ep, fd, 1 << bit)} == known
        assert not any(accepts(ep, fd, -(1 << bit)) for bit in range(70))


# Timeouts.

BILLIONTH = 2**63 / 1e9
"""The seconds that 2**63 nanoseconds are."""


@pytest.mark.parametrize("pwait2", [True, False], ids=["pwait2", "fallback"])
@pytest.mark.parametrize(
    "timeout",
    [
        *(2**63 // 10**9 - 1, 2**63 // 10**9, 2**63 // 10**9 + 1, 2**64 // 10**9, 2**64 // 10**9 + 1),
        *(math.nextafter(BILLIONTH, 0), BILLIONTH, math.nextafter(BILLIONTH, math.inf)),
        *(2**31 / 1e3 - 0.001, 2**31 / 1e3, 2**31 / 1e3 + 0.001, 2**32 / 1e3, 2.0**31, 2.0**63, 2.0**64),
        *(1e300, sys.float_info.max, 10**400),
    ],
    ids=repr,
)
def test_a_timeout_at_a_limit_of_the_kernels_is_long(
    pool: ThreadPoolExecutor, ep: Epoll, eventfd: Eventfd, timeout: float, pwait2: bool
) -> None:
    """It neither wraps round to one that has passed nor fails."""
    fd = eventfd()
    ep.register(fd, Event.IN)
    before = _epoll.use_pwait2(pwait2)
    try:
        waits = [pool.submit(ep.poll, timeout), pool.submit(lambda: list(ep.wait(timeout)))]
        until(lambda: waiters() == 2)
        time.sleep(0.003)
        assert not any(wait.done() for wait in waits)
        os.eventfd_write(fd, 1)
        assert [wait.result(10) for wait in waits] == [[(fd, Event.IN)]] * 2
    finally:
        _epoll.use_pwait2(before)


class Number:
    """As the scalars of numpy: a number that is none of Python's types."""

    def __init__(self, index: object, real: object) -> None:
        self.index, self.real = index, real

    def __float__(self) -> Any:
        return self.real


class Integer(Number):
    def __index__(self) -> Any:
        if isinstance(self.index, BaseException):
            raise self.index
        return self.index


def test_an_object_with_index_is_an_int(ep: Epoll, eventfd: Eventfd) -> None:
    """An object with __index__ is an int, whatever its __float__ returns, as for stock."""
    ep.register(eventfd(1), Event.IN)
    assert len(ep.poll(Integer(0, 100.0))) == 1
    wrong: Any
    with select.epoll() as other:
        for wrong in (Number(None, "0"), Integer(0.5, 0.0), Integer(TypeError("only integers"), 0.0)):
            for poll in (ep.poll, other.poll):
                with pytest.raises(TypeError):
                    poll(wrong)
    with pytest.raises(TypeError, match="only integers"):
        ep.poll(Integer(TypeError("only integers"), 0.0))
