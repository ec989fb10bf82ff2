"""Fixtures, which undo their changes, and hooks. Plain helpers are in ``support``."""

import contextlib
import faulthandler
import fcntl
import functools
import gc
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import (
    fault_table,
    fresh_extension,  # noqa: F401  first: an old extension may lack names of the package
)
from support.effort import Effort
from support.fds import Pipe, open_fds
from support.guard import Guard, accept_ignored_signals
from support.processes import HANG, SANITIZED
from support.threads import others_sleep, until

import pyepoll


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compile a shared library from C source, each source once."""

    @functools.cache
    def compiled(source: str) -> Path:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("no C compiler")
        file = tmp_path_factory.mktemp("library") / "library.c"
        file.write_text(source)
        library = file.with_suffix(".so")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, file, "-ldl"], check=True)
        return library

    return compiled


@pytest.fixture
def preload(libraries: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the programs that the test starts load a library, given as C source, before all others."""

    def load(source: str) -> None:
        if SANITIZED:
            pytest.skip("a sanitizer has to be the first library")
        monkeypatch.setenv("LD_PRELOAD", os.fspath(libraries(source)))

    return load


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="attack as long as the session soak does, and run the tests marked long",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if nameless := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        # They differ in each process, so that pytest-xdist cannot share the tests out.
        raise pytest.UsageError(f"the id of a test must not contain an address: {nameless[0]}")
    if not config.getoption("--long"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if shown := config.stash[_figures]:
        terminalreporter.section("figures")
        for line in shown:
            terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = []
    config.pluginmanager.register(fault_table)
    # While tests run, fd 2 is pytest's capture file, which dies with the process.
    faulthandler.enable()
    config.stash[_guard] = Guard(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2))
    accept_ignored_signals()
    # Objects that a process makes only once are made here, so that no test is charged with them.
    with pyepoll.Epoll[int]() as ep:
        ep.poll(0)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_guard].close()


_guard = pytest.StashKey[Guard]()
_figures = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> None:
    """Let collections of garbage, of which there are thousands, skip pytest's own objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    lasts = request.node.get_closest_marker("lasts")
    seconds: float = HANG
    if request.config.getoption("--long"):
        # The long forms run unattended, possibly beside other programs.
        seconds = 5 * HANG + (lasts.args[0] if lasts else 0)
    elif lasts and lasts.kwargs.get("always"):
        seconds = max(HANG, lasts.args[0])
    request.config.stash[_guard].start(request.node, seconds)
    if SANITIZED:
        # The guard's thread, and that of the test before, free memory without the GIL as they start and end.
        # A child made in that moment finds the allocator of a sanitizer older than LLVM 18 locked for good
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

    def leaked() -> dict[int, str]:
        return {fd: what for fd, what in open_fds().items() if fd not in before}

    # A thread that has just woken a loop may be the last to have its eventfd, and about to close it.
    with contextlib.suppress(AssertionError):
        until(lambda: not leaked(), 1)
    assert not leaked(), f"fds left open: {leaked()}"


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> Effort:
    """Choose how much a test does: ``quick``, or ``long`` with ``pytest --long`` (the session soak)."""
    return lambda quick, long: long if request.config.getoption("--long") else quick


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print the observations, after all tests; never a condition of the test."""
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
    # Some are open already, and some are for the observer.
    yield limits[1] - 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def closed_fd() -> int:
    """An fd that is closed, and that the next files opened do not get."""
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
