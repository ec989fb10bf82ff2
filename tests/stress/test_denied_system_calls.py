"""A sandbox may deny any system call: the calls that need it raise, no others fail, and no event is lost.

A seccomp filter belongs to a thread, so each attack has a thread that is denied a call and ends.
"""

import contextlib
import errno
import functools
import gc
import os
import re
import select
import signal
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fds import open_fds
from support.kernel import agree, fdinfo, fdinfo_lines
from support.processes import run
from support.seccomp import SYSCALLS, denied, deny
from support.threads import until, waiters

import pyepoll
from pyepoll import Event, _epoll, raw

Epoll = pyepoll.Epoll[Any]

DENIED = [errno.EPERM, errno.ENOSYS]


@pytest.fixture(autouse=True)
def pwait2() -> Iterator[None]:
    """A refusal of epoll_pwait2 holds for the rest of the process: take it back."""
    before = _epoll.use_pwait2(True)
    yield
    _epoll.use_pwait2(before)


class World:
    """An epoll that watches a ready fd, another epoll that watches it, and fds to register."""

    def __init__(self) -> None:
        self.ep = pyepoll.Epoll[Any]()
        self.live, self.other = (os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2))
        self.file = os.open(__file__, os.O_RDONLY)
        # An fd far from the others.
        self.far = os.dup2(self.other, 700)
        self.fds = [self.live, self.other, self.file, self.far]
        self.ep.register(self.live, Event.IN, "live")
        self.outer, self.foreign = select.epoll(), select.epoll()
        self.outer.register(self.ep.fileno(), select.EPOLLIN)
        self.watched = fdinfo_lines(self.outer)

    def make_stale(self) -> None:
        """Leave a stale registration that has not reported yet."""
        stale_fd = os.eventfd(1)
        self.fds.append(os.dup(stale_fd))
        self.ep.register(stale_fd, Event.IN, "stale")
        os.close(stale_fd)
        with contextlib.suppress(OSError):
            self.ep.unregister(stale_fd)

    def stale_events(self) -> int:
        return len(fdinfo_lines(self.ep)) - len(self.ep)

    def close(self) -> None:
        self.ep.close()
        self.outer.close()
        self.foreign.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


@contextlib.contextmanager
def asleep(world: World) -> Iterator[list[object]]:
    """A thread, denied nothing, that waits indefinitely, and the result of its wait."""
    world.ep.unregister(world.live)
    results: list[object] = []

    def wait() -> None:
        try:
            results.append(world.ep.poll())
        except ValueError:
            results.append("closed")

    # A failed test leaves it asleep.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until(lambda: waiters() == 1)
    yield results
    thread.join(5)


def use_waker(world: World) -> None:
    waker = pyepoll.Waker()
    waker.wake()
    assert waker.clear()
    waker.close()


def use_timer(world: World) -> None:
    timer = pyepoll.Timer(0)
    until(lambda: timer.read() == 1)
    timer.close()


def use_signals(world: World) -> None:
    signals = pyepoll.Signals(signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    assert signals.read() == [signal.SIGUSR1]
    signals.close()


def use_child(world: World) -> None:
    child = pyepoll.Child(os.getpid())
    try:
        child.send_signal(0)
        assert not child.read()
    finally:
        child.close()


def borrow(world: World) -> None:
    """A second handle; it must not close its borrowed fd."""
    same = pyepoll.Epoll[Any].fromfd(world.ep.fileno())
    assert same.registrations[world.live] == (Event.IN, "live")


def wait_raw(wait: Callable[..., int]) -> Callable[[World], None]:
    def call(world: World) -> None:
        buffer = raw.EventBuffer(4)
        assert wait(world.ep.fileno(), buffer, 10) == 1

    return call


def expect(call: Callable[[World], list[tuple[Any, Event]]]) -> Callable[[World], None]:
    def check(world: World) -> None:
        assert call(world) == [("live", Event.IN)]

    return check


EPOLL_WAIT = {"epoll_wait", "epoll_pwait"}
"""epoll_wait() of libc is the system call epoll_pwait on newer machines, and in musl."""

CALLS: dict[str, tuple[Callable[[World], object], set[str]]] = {
    "Epoll": (lambda w: pyepoll.Epoll[Any]().close(), {"epoll_create1"}),
    "Waker": (use_waker, {"eventfd2"}),
    "Timer": (use_timer, {"timerfd_create"}),
    "Signals": (use_signals, {"eventfd2"}),
    "Child": (use_child, {"pidfd_open", "pidfd_send_signal", "waitid"}),
    "register": (lambda w: w.ep.register(w.other, Event.OUT, "other"), {"epoll_ctl"}),
    "register far": (lambda w: w.ep.register(w.far, Event.OUT, "far"), {"epoll_ctl"}),
    "modify": (lambda w: w.ep.modify(w.live, Event.IN | Event.OUT), {"epoll_ctl"}),
    "rearm": (lambda w: w.ep.rearm(w.live), {"epoll_ctl"}),
    "unregister": (lambda w: w.ep.unregister(w.live), {"epoll_ctl"}),
    "poll(0)": (expect(lambda w: w.ep.poll(0)), EPOLL_WAIT),
    "poll": (expect(lambda w: w.ep.poll(5)), set()),
    "wait": (expect(lambda w: list(w.ep.wait(5, -1, [10]))), set()),
    "wait()": (expect(lambda w: list(w.ep.wait())), EPOLL_WAIT),
    "next": (expect(lambda w: [next(iter(w.ep))]), EPOLL_WAIT),
    "fromfd": (borrow, {"fcntl", "readlink"}),
    "get_busy_poll": (lambda w: w.ep.get_busy_poll(), {"ioctl"}),
    "repr": (lambda w: (repr(w.ep), w.ep.stats(), dict(w.ep.registrations), w.live in w.ep), set()),
    "close": (lambda w: w.ep.close(), set()),
    "raw.epoll_create1": (lambda w: os.close(raw.epoll_create1(0)), {"epoll_create1"}),
    "raw.epoll_ctl": (
        lambda w: raw.epoll_ctl(w.foreign.fileno(), raw.EPOLL_CTL_ADD, w.other, raw.EPOLLIN),
        {"epoll_ctl"},
    ),
    "raw.epoll_wait": (wait_raw(raw.epoll_wait), EPOLL_WAIT),
    "raw.epoll_pwait": (wait_raw(raw.epoll_pwait), {"epoll_pwait"}),
    "raw.epoll_pwait2": (wait_raw(raw.epoll_pwait2), {"epoll_pwait2"}),
}
"""A call of everything, and which denials it cannot do without."""

UNSUPPORTED = (errno.ENOTTY, errno.EOPNOTSUPP)
"""The error of get_busy_poll on most kernels."""


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("syscall", sorted(SYSCALLS.keys() - {"epoll_create"}))
def test_only_calls_that_need_the_denied_one_fail(syscall: str, error: int) -> None:
    for name, (call, needs) in CALLS.items():
        _epoll.use_pwait2(True)
        with contextlib.closing(World()) as world:
            before = open_fds()
            result = denied(functools.partial(call, world), error, syscall)
            if isinstance(result, OSError):
                allowed = UNSUPPORTED if name == "get_busy_poll" else ()
                assert result.errno in ((error, *allowed) if syscall in needs else allowed), name
                assert type(result) is type(OSError(result.errno, ""))
                assert re.search(r"\w.*: \w", str(result)), "it names the operation"
            else:
                assert not isinstance(result, BaseException), (name, result)
            del result
            gc.collect()
            if name != "close":
                assert open_fds() == before, name
                # Not denied any more, it goes on as if nothing had been.
                got = [data for data, _ in world.ep.poll(0) if data == "live"]
                assert got == ([] if name == "unregister" else ["live"]), name
                assert agree(world.ep), name


# System calls that the calls above do not make.


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
def test_a_forbidden_epoll_ctl_is_not_a_file_that_cannot_be_polled(world: World, error: int) -> None:
    with open(os.devnull) as null:
        calls: list[Callable[[], object]] = [
            lambda: world.ep.register(world.other, Event.IN),
            lambda: world.ep.register(null.fileno(), Event.IN),
            lambda: world.ep.modify(world.live, Event.OUT),
            lambda: world.ep.rearm(world.live),
            lambda: raw.epoll_ctl(world.ep.fileno(), raw.EPOLL_CTL_ADD, world.other, raw.EPOLLIN),
        ]
        for call in calls:
            result = denied(call, error, "epoll_ctl")
            assert isinstance(result, OSError)
            assert result.errno == error
            assert "polled" not in str(result)
            assert ("forbidden" in str(result)) is (error == errno.EPERM)
    assert world.ep.registrations[world.live] == (Event.IN, "live")
    assert agree(world.ep)


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "syscall", ["epoll_create1", "epoll_ctl", "dup3", "openat", "readlink", "newfstatat"]
)
def test_a_denied_rebuild_is_postponed(world: World, syscall: str, error: int) -> None:
    """The live registration is reported, watchers keep watching, and a later wait repairs."""
    world.make_stale()

    def polls() -> list[Any]:
        end, got = time.monotonic() + 0.05, []
        while time.monotonic() < end:
            got = world.ep.poll(0)
        return got

    assert denied(polls, error, syscall) == [("live", Event.IN)]
    assert fdinfo_lines(world.outer) == world.watched
    until(lambda: world.ep.poll(0) == [("live", Event.IN)] and world.stale_events() == 0)
    assert agree(world.ep)
    assert world.ep.stats().lost_registrations == 0
    assert fdinfo_lines(world.outer) == world.watched


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "syscall", ["fcntl", "getdents64", "getrandom", "ioctl", "eventfd2", "clock_nanosleep"]
)
def test_a_rebuild_needs_no_optional_call(world: World, syscall: str, error: int) -> None:
    world.make_stale()
    assert denied(lambda: [world.ep.poll(0) for _ in range(10)][-1], error, syscall) == [("live", Event.IN)]
    assert world.stale_events() == 0
    assert agree(world.ep)
    assert fdinfo_lines(world.outer) == world.watched


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "syscall",
    sorted(
        {"eventfd2", "fcntl", "openat", "readlink", "ioctl", "epoll_create1", "dup3", *EPOLL_WAIT}
        & SYSCALLS.keys()
    ),
)
def test_close_wakes_waiters(world: World, syscall: str, error: int) -> None:
    with asleep(world) as results:
        assert denied(world.ep.close, error, syscall) is None
        until(lambda: results == ["closed"])


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
def test_close_raises_if_it_cannot_wake_waiters(world: World, error: int) -> None:
    """Nothing but epoll_ctl reaches a thread that sleeps in epoll_wait."""
    with asleep(world) as results:
        spare = os.dup(world.ep._instance_fd())
        world.fds.append(spare)
        result = denied(world.ep.close, error, "epoll_ctl")
        assert isinstance(result, OSError)
        assert result.errno == error
        assert world.ep.closed
        assert results == []
        # By the file itself it can still be woken.
        raw.epoll_ctl(spare, raw.EPOLL_CTL_ADD, world.other, raw.EPOLLIN)
        until(lambda: results == ["closed"])


# Not every C library stats what it opens. musl opens with the older call, and needs no dup3.
EVADED = {("newfstatat", error) for error in DENIED}
if "musl" in (sysconfig.get_config_var("SOABI") or ""):
    EVADED |= {("openat", errno.EPERM), ("openat", errno.ENOSYS), ("dup3", errno.ENOSYS)}


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("syscall", ["epoll_create1", "epoll_ctl", "dup3", "newfstatat"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_forked_copy_without_an_instance_raises(world: World, syscall: str, error: int) -> None:
    """It neither uses the parent's instance, nor calls it another file, nor loses registrations."""
    reader, writer = os.pipe()

    def in_child() -> None:
        try:
            world.ep.poll(0)
            text = f"{world.ep.poll(0)}"
        except OSError as exception:
            text = f"{exception.errno} {exception.strerror}"
        os.write(writer, text.encode())

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                in_child()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    denied(fork, error, syscall)
    text = os.read(reader, 1000).decode()
    os.close(reader)
    os.close(writer)
    if (syscall, error) not in EVADED or text.startswith(f"{error} "):
        assert text.startswith(f"{error} ")
        assert "inherited through fork" in text
        assert "another file" not in text
    assert world.ep.poll(0) == [("live", Event.IN)]
    assert agree(world.ep)
    assert fdinfo_lines(world.outer) == world.watched


def test_an_unreadable_limit_is_not_shown_as_0(world: World) -> None:
    def register() -> None:
        deny("openat", errno.EPERM)
        world.ep.register(world.other, Event.IN)

    result = denied(register, errno.ENOSPC, "epoll_ctl")
    assert isinstance(result, OSError)
    assert result.errno == errno.ENOSPC
    assert "max_user_watches" in str(result)
    assert " 0 " not in str(result)


def test_a_forbidden_busy_poll_call_is_not_blamed_on_the_budget(world: World) -> None:
    calls: list[Callable[[], object]] = [
        world.ep.get_busy_poll,
        lambda: world.ep.set_busy_poll(1, 8, False),
    ]
    for call in calls:
        result = denied(call, errno.EPERM, "ioctl")
        assert isinstance(result, PermissionError)
        assert "CAP_NET_ADMIN" not in str(result)


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_the_import_without_an_eventfd_raises(error: str) -> None:
    """Then close could not wake a waiter: the import fails and says why."""
    printed = run(
        f"""
        import errno, sys
        from support.seccomp import SYSCALLS, deny
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyepoll"]:
            del sys.modules[name]
        SYSCALLS["eventfd2"] = {SYSCALLS["eventfd2"]}
        deny("eventfd2", errno.{error})
        for _ in range(2):
            try:
                import pyepoll
            except OSError as error:
                assert error.errno == errno.{error}
                print(error)
        """
    )
    assert printed.count("eventfd") == 2


# A chroot without /proc.

WITHOUT_PROC = """
    import errno, os, select, sys, threading, time
    import pyepoll
    from pyepoll import Event
    ep, live, other = pyepoll.Epoll(), os.eventfd(1), os.eventfd(1)
    ep.register(live, Event.IN, "live")
    stale_fd = os.eventfd(1)
    keep = os.dup(stale_fd)
    ep.register(stale_fd, Event.IN, "stale")
    os.close(stale_fd)
    try:
        ep.unregister(stale_fd)
    except OSError:
        pass
    try:
        os.chroot({directory!r})
    except PermissionError:
        print("not allowed")
        sys.exit()
    assert not os.path.exists("/proc")
    """


@pytest.fixture
def without_proc(tmp_path: Path) -> Callable[[str], str]:
    return lambda program: run_without_proc(tmp_path, program)


def run_without_proc(directory: Path, program: str) -> str:
    printed = run(WITHOUT_PROC.format(directory=str(directory)) + program)
    if printed.strip() == "not allowed":
        pytest.skip("chroot is the superuser's")
    return printed


def test_stale_registrations_do_not_spin_without_proc(without_proc: Callable[[str], str]) -> None:
    printed = without_proc(
        """
    assert ep.poll(0) == [("live", Event.IN)]
    os.eventfd_read(live)
    used = time.process_time()
    assert ep.poll(0.5) == []
    assert time.process_time() - used < 0.1, "the stale registration spins"
    ep.register(other, Event.IN | Event.WAKEUP, "other")
    ep.modify(other, Event.IN)
    ep.unregister(other)
    with select.epoll() as foreign:
        for number in (ep.fileno(), foreign.fileno(), other):
            try:
                pyepoll.Epoll.fromfd(number)
            except OSError as error:
                print(error)
    try:
        ep.register(other, Event.EXCLUSIVE | Event.ONESHOT)
    except OSError as error:
        print(error)
    ep.unregister(live)
    waited = []
    def wait():
        try:
            ep.poll(20)
        except ValueError:
            waited.append("closed")
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    ep.close()
    thread.join(5)
    assert waited == ["closed"]
    """
    )
    assert printed.count("/proc") == 3
    assert "not an epoll" not in printed
    assert "EXCLUSIVE cannot be combined with ONESHOT" in printed


def test_a_forked_copy_without_proc_works_or_raises(without_proc: Callable[[str], str]) -> None:
    """kcmp tells that the fds are the inherited ones; which one-shots have fired, only /proc does."""
    printed = without_proc(
        """
    def use_in_child():
        pid = os.fork()
        if pid == 0:
            try:
                print([data for data, _ in ep.poll(0)])
            except OSError as error:
                print(error)
            ep.close()
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        assert ("live", Event.IN) in ep.poll(0)

    use_in_child()
    ep.fileno()
    use_in_child()
    ep.register(other, Event.IN | Event.ONESHOT, "one-shot")
    use_in_child()
    """
    )
    assert printed.count("['live']") == 2
    assert printed.count("without /proc") == 1
    assert "another file" not in printed


# epoll_pwait2.


@pytest.mark.parametrize("error", DENIED, ids=errno.errorcode.get)
@pytest.mark.parametrize("how", ["poll", "wait", "sigmask"])
def test_waits_fall_back_without_pwait2(world: World, how: str, error: int) -> None:
    """The first call falls back, with the same deadline, and so do all later ones; uses_pwait2() tells."""
    world.ep.unregister(world.live)
    waits: dict[str, Callable[[float], object]] = {
        "poll": lambda timeout: world.ep.poll(timeout),
        "wait": lambda timeout: list(world.ep.wait(timeout)),
        "sigmask": lambda timeout: list(world.ep.wait(timeout, sigmask=())),
    }

    def attempt() -> None:
        for timeout in (1e-9, 0.0002, 0.001, 0.0010001, 0.0105):
            before, start = world.ep.stats().waits, time.monotonic()
            assert waits[how](timeout) == []
            assert time.monotonic() - start >= timeout
            assert world.ep.stats().waits - before <= 2, "it sleeps, and does not poll"

    assert raw.uses_pwait2()
    result = denied(attempt, error, "epoll_pwait2")
    if isinstance(result, BaseException):
        raise result
    assert not raw.uses_pwait2()
    attempt()


def test_a_zero_timeout_does_not_try_pwait2(world: World) -> None:
    """Nor does an endless one: so a program of these is the same everywhere."""
    for timeout in (0, -5, None, float("inf")):
        got = denied(lambda: world.ep.poll(timeout), errno.EPERM, "epoll_pwait2")  # noqa: B023
        assert got == [("live", Event.IN)]
    assert raw.uses_pwait2()


@pytest.mark.parametrize(
    "error", [errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO], ids=errno.errorcode.get
)
@pytest.mark.parametrize("masked", [False, True], ids=["", "sigmask"])
def test_any_errno_for_pwait2_falls_back(world: World, error: int, masked: bool) -> None:
    """The older call has no such error, so it is not the epoll's."""
    world.ep.unregister(world.live)

    def attempt() -> None:
        start = time.monotonic()
        assert list(world.ep.wait(0.01, -1, () if masked else None)) == []
        assert time.monotonic() - start >= 0.01

    result = denied(attempt, error, "epoll_pwait2")
    if isinstance(result, BaseException):
        raise result
    assert not raw.uses_pwait2()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EINVAL], ids=errno.errorcode.get)
def test_an_errno_of_both_calls_is_raised(world: World, error: int) -> None:
    result = denied(lambda: world.ep.poll(1), error, "epoll_pwait2", *(EPOLL_WAIT & SYSCALLS.keys()))
    assert isinstance(result, OSError)
    assert result.errno == error
    assert raw.uses_pwait2()
    assert fdinfo(world.ep).keys() == {world.live}


KILLED = """
    import os
    from support.seccomp import kill_for
    import pyepoll
    {before}
    kill_for("epoll_pwait2")
    with pyepoll.Epoll() as ep:
        assert ep.poll(0.001) == []
        assert list(ep.wait(0.001, sigmask=())) == []
        print(pyepoll.raw.uses_pwait2())
    """


def test_a_filter_that_kills_ends_the_process() -> None:
    with pytest.raises(AssertionError):
        run(KILLED.format(before=""))


def test_use_pwait2_avoids_a_filter_that_kills() -> None:
    assert run(KILLED.format(before="assert pyepoll.use_pwait2(False) is True")) == "False\n"


def test_pyepoll_no_pwait2_avoids_a_filter_that_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYEPOLL_NO_PWAIT2", "1")
    assert run(KILLED.format(before="")) == "False\n"
    diagnosis = "from pyepoll import doctor\n    print(doctor.check())"
    assert "switched off" in run(KILLED.format(before="") + "\n    " + diagnosis)


@pytest.mark.parametrize("value", ["", "0"])
def test_pyepoll_no_pwait2_that_is_false_changes_nothing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PYEPOLL_NO_PWAIT2", value)
    assert run("import pyepoll; print(pyepoll.raw.uses_pwait2())") == "True\n"
