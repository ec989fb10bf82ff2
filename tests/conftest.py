"""What every test shares: fds that close themselves, the kernel as the oracle, and two guards.

Plain helpers are imported (``from conftest import fdinfo, until``); what must be undone is a fixture.
"""

import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import fresh_extension  # noqa: F401  first: the package may need what an old extension lacks
import pytest
from guard import Guard, accept_ignored_signals

import pyepoll

SANITIZED = any(hasattr(ctypes.CDLL(None), name) for name in ("__asan_init", "__tsan_init"))
"""Whether a sanitizer has its own memory beside this process's: what the process takes says little then."""

HANG = 600 if SANITIZED else 60
"""Seconds after which a test counts as hung, and fails."""

IMPLIED = pyepoll.EPOLLERR | pyepoll.EPOLLHUP
"""What the kernel adds to every mask."""

SYSCALLS = {
    "x86_64": {
        "clock_nanosleep": 230,
        "dup3": 292,
        "epoll_create": 213,
        "epoll_create1": 291,
        "epoll_ctl": 233,
        "epoll_pwait": 281,
        "epoll_pwait2": 441,
        "epoll_wait": 232,
        "eventfd2": 290,
        "fcntl": 72,
        "fstat": 5,
        "getdents64": 217,
        "getrandom": 318,
        "ioctl": 16,
        "kcmp": 312,
        "newfstatat": 262,
        "openat": 257,
        "readlink": 89,
    },
    "aarch64": {
        "clock_nanosleep": 115,
        "dup3": 24,
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_pwait": 22,
        "epoll_pwait2": 441,
        "eventfd2": 19,
        "fcntl": 25,
        "fstat": 80,
        "getdents64": 61,
        "getrandom": 278,
        "ioctl": 29,
        "kcmp": 272,
        "newfstatat": 79,
        "openat": 56,
        "readlink": 78,
    },
}[os.uname().machine]
"""The numbers of the system calls that the core makes; aarch64 has but the newer ones of epoll's."""

EXIT = {
    "x86_64": 60,
    "aarch64": 93,
}[os.uname().machine]
"""The number of exit(2), which ends a thread. Not one of SYSCALLS: denied, a thread tries for ever."""


class HasFileno(Protocol):
    def fileno(self, /) -> int: ...


class Pipe:
    """Both ends of a non-blocking pipe, as ints; an end may be closed early."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = [self.read, self.write]

    def close(self, *fds: int) -> None:
        for fd in fds or tuple(self._open):
            self._open.remove(fd)
            os.close(fd)

    def fill(self) -> int:
        """Write until there is no room; return how many bytes that took."""
        written = 0
        try:
            while True:
                written += os.write(self.write, bytes(65536))
        except BlockingIOError:
            return written


def instance_fd(ep: int | HasFileno) -> int:
    """The fd of the kernel instance, which for an Epoll is not what fileno() returns."""
    if isinstance(ep, int):
        return ep
    epoll: Any = getattr(ep, "_selector", ep)
    number: int = getattr(epoll, "_instance_fd", epoll.fileno)()
    return number


def fdinfo_lines(ep: int | HasFileno) -> list[tuple[int, int, int]]:
    """What the kernel watches for an epoll, as (fd, events, data word).

    A number can be there twice: a ghost (its fd closed, its file open elsewhere) and a live one.
    """
    with open(f"/proc/thread-self/fdinfo/{instance_fd(ep)}") as file:
        fields = [line.split() for line in file if line.startswith("tfd:")]
    return [(int(f[1]), int(f[3], 16), int(f[5], 16)) for f in fields]


def fdinfo(ep: int | HasFileno) -> dict[int, tuple[int, int]]:
    """What the kernel watches for an epoll: fd to (events with ERR and HUP added, data word)."""
    return {fd: (events, data) for fd, events, data in fdinfo_lines(ep)}


def agree(ep: pyepoll.Epoll[Any]) -> bool:
    """Whether the object believes what the kernel knows; not for a spent one-shot, which shows no bits."""
    believed = {fd: events | IMPLIED for fd, (events, _) in ep.registrations.items()}
    return believed == {fd: events for fd, (events, _) in fdinfo(ep).items()}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.001)


def threads_say(what: str) -> Iterator[tuple[int, bytes]]:
    """The ids of this process's threads, and what /proc says of each in that file."""
    for task in os.listdir("/proc/self/task"):
        # The thread may have ended meanwhile.
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/self/task/{task}/{what}", "rb") as file,
        ):
            yield int(task), file.read()


def waiters() -> int:
    """How many threads of this process sleep in an epoll wait."""
    waits = [str(number).encode() for name, number in SYSCALLS.items() if "wait" in name]
    return sum(text.split()[0] in waits for _, text in threads_say("syscall"))


def others_sleep() -> bool:
    """Whether no other thread of this process runs."""
    own = threading.get_native_id()
    return all(
        text.rpartition(b")")[2].split()[0] == b"S" for task, text in threads_say("stat") if task != own
    )


def fork(seconds: int = 0) -> int:
    """os.fork(), also where there are threads: what becomes of them in the child is what is tested.

    A child that is still there after so many seconds says where, and ends; 0 is for ever.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0 and seconds > 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)
        signal.alarm(seconds)
    return child


def lets_go_of_the_gil(call: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether another thread gets to run while this one makes the call, again and again."""
    started, go, ran = threading.Event(), threading.Event(), threading.Event()

    def other() -> None:
        started.set()
        go.wait()
        ran.set()

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    thread.start()
    started.wait()
    time.sleep(0.01)
    # From here on no thread asks for the GIL: it changes hands only when it is let go.
    sys.setswitchinterval(1000)
    try:
        deadline = time.monotonic() + seconds
        go.set()
        while not ran.is_set() and time.monotonic() < deadline:
            call()
        return ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def open_fds() -> dict[int, str]:
    """The fds of this process and what they are."""
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # The one that listed the directory.
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return fds


@contextlib.contextmanager
def no_fd_left(spare: int = 0) -> Iterator[None]:
    """As many fds open as this process may have, but for a few."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 8, limits[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def run(program: str) -> str:
    """Run a program in an interpreter of its own; return what it prints, fail with what it complains of."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=HANG / 2,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def deny(syscall: str, error: int) -> None:
    """From now on let a system call fail in this process: for programs that ``run`` runs.

    A seccomp filter, so it needs no privilege and touches nothing outside the process.
    """
    filter_syscall(syscall, 0x0005_0000 | error)  # SECCOMP_RET_ERRNO


def kill_for(syscall: str) -> None:
    """From now on let a system call end this process with SIGSYS: for programs that ``run`` runs."""
    filter_syscall(syscall, 0x8000_0000)  # SECCOMP_RET_KILL_PROCESS


def filter_syscall(syscall: str, action: int) -> None:
    """Answer a system call of this thread, and of those that it starts, with a seccomp action."""

    def operation(code: int, k: int, skip_unless: int = 0) -> bytes:
        return struct.pack("=HBBI", code, 0, skip_unless, k)

    load, jump_if_equal, ret = 0x20, 0x15, 0x06
    program = b"".join(
        [
            operation(load, 0),
            operation(jump_if_equal, SYSCALLS[syscall], skip_unless=1),
            operation(ret, action),
            operation(ret, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
        ]
    )
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, ctypes.c_ulong(2), filters, zero, zero) == 0  # PR_SET_SECCOMP, a filter


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="attack as long as .ci/deep does, and run the tests marked long"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if shown := config.stash[_figures]:
        terminalreporter.section("figures")
        for line in shown:
            terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = []
    # While tests run, fd 2 is pytest's capture file, which dies with the process.
    faulthandler.enable()
    config.stash[_guard] = Guard(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2))
    accept_ignored_signals()
    # What a process makes once only is made here, so that no test is charged with it.
    with pyepoll.Epoll[int]() as ep:
        ep.poll(0)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_guard].close()


_guard = pytest.StashKey[Guard]()
_figures = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> None:
    """Let collections of garbage, of which there are thousands, pass over what pytest itself holds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    lasts = request.node.get_closest_marker("lasts")
    seconds: float = HANG
    if request.config.getoption("--long"):
        # Nobody waits for the long forms, and other programs may be at work beside them.
        seconds = 5 * HANG + (lasts.args[0] if lasts else 0)
    request.config.stash[_guard].start(request.node, seconds)
    if SANITIZED:
        # The guard's thread, and that of the test before, free memory without the GIL as they start and end.
        # A child made in that moment finds the allocator of a sanitizer older than LLVM 18 locked for ever
        # (llvm-project#75290).
        until(others_sleep)
    yield
    request.config.stash[_guard].stop()


@pytest.fixture(autouse=True)
def no_leaked_fd(no_hang: None) -> Iterator[None]:
    gc.collect()
    before = open_fds()
    yield
    gc.collect()
    leaked = {fd: what for fd, what in open_fds().items() if fd not in before}
    assert not leaked, f"fds left open: {leaked}"


class Effort(Protocol):
    def __call__(self, quick: int, long: int) -> int: ...


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> Effort:
    """Choose how much a test does: ``quick`` in .ci/run, ``long`` in .ci/deep (``pytest --long``)."""
    return lambda quick, long: long if request.config.getoption("--long") else quick


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print what was seen, after all tests; never a condition of the test."""
    return lambda text: request.config.stash[_figures].append(f"{request.node.name}: {text}")


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """The GIL changes hands as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def room() -> Iterator[int]:
    """Allow as many fds as may be; how many of them a test may open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    # Some are open already, and some are for what looks on.
    yield limits[1] - 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def closed_fd() -> int:
    """A number that no file has, and that the next ones opened do not get."""
    fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 700)
    os.close(fd)
    return fd


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that block; the end of the test waits for them."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def ep(pool: ThreadPoolExecutor) -> Iterator[pyepoll.Epoll[Any]]:
    # Closed before the pool is, which ends the waits that a failed test leaves in its threads.
    with pyepoll.Epoll[Any]() as ep:
        yield ep


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def make_pipe() -> Iterator[Callable[[], Pipe]]:
    pipes: list[Pipe] = []

    def make() -> Pipe:
        pipes.append(Pipe())
        return pipes[-1]

    yield make
    for pipe in pipes:
        pipe.close()


@pytest.fixture
def socketpair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of TCP sockets on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def make_events() -> Iterator[Callable[[Any], None]]:
    """Let a function make the events that a wait yields: Python code at that very place."""
    yield pyepoll._epoll._use_events
    pyepoll._epoll._use_events(pyepoll.Event)


@pytest.fixture
def eventfd() -> Iterator[Callable[..., int]]:
    """Make non-blocking eventfds, closed at the end (a test that closes one early makes its own).

    ``eventfd(1)`` is ready to read from the start; every eventfd is ready to write.
    """
    made: list[int] = []

    def make(count: int = 0) -> int:
        made.append(os.eventfd(count, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)
