"""Faults of asyncio and of uvloop, and which loop has which of them: the tests test_aio_fault_*.py.

`FAULTS` names each fault once. A test for one of them is marked with ``@sides("its name")``; it then runs on
asyncio's own loop, on uvloop if that is installed, and on ours. On a loop that has the fault the test is an
expected failure.

The faults that ours still has are listed in `OURS`, one a line: after a fix, delete the line, and the test
has to pass. It may fail until then (issue 16).
"""

import asyncio
import contextlib
import gc
import importlib
import importlib.util
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import pytest

from support.loops import FACTORIES

T = TypeVar("T")
VERSION = sys.version_info[:3]
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None


def fixed_in(*releases: tuple[int, int, int], since: tuple[int, int] = (3, 11)) -> bool:
    """Whether this CPython has a fault that `since` brought and these releases of their branches fixed.

    Branches after the last of these releases do not have it, other branches without a release do.
    """
    branch = VERSION[:2]
    if branch < since or branch > max(release[:2] for release in releases):
        return False
    return all(VERSION < release for release in releases if release[:2] == branch)


ALWAYS, NEVER = True, False


class Fault(NamedTuple):
    """Which loops have a fault on this CPython."""

    asyncio: bool
    uvloop: bool = NEVER
    sure: bool = True
    """Whether asyncio's fault shows in every run: a test that passes there is then an error of this table."""


FAULTS = {
    # Data.
    "write: bytearray reused": Fault(VERSION >= (3, 12), ALWAYS),
    "write: bytearray cleared": Fault(VERSION >= (3, 12), ALWAYS),
    "write: items larger than a byte": Fault(ALWAYS, sure=VERSION >= (3, 12)),
    "writelines: buffers reused": Fault(VERSION >= (3, 12), ALWAYS),
    "writelines: never pauses": Fault(fixed_in((3, 12, 9), (3, 13, 2), since=(3, 12))),
    "writelines: spins on an empty item": Fault(fixed_in((3, 14, 10), since=(3, 12)), sure=False),
    "writelines: raises after close": Fault(fixed_in((3, 14, 10), since=(3, 12)), ALWAYS, sure=False),
    "write: quadratic": Fault((3, 12) <= VERSION[:2] < (3, 15), sure=False),
    # The end of a connection.
    "close: abort after the data was sent": Fault(fixed_in((3, 14, 10)), sure=False),
    "close: write after the data was sent": Fault(fixed_in((3, 14, 10)), ALWAYS, sure=False),
    "close: other calls after the data was sent": Fault(NEVER, ALWAYS),
    "close: connection_lost twice": Fault(fixed_in((3, 14, 10)), sure=False),
    # Contexts.
    "resume_reading: context of a task": Fault(fixed_in((3, 15, 0)), ALWAYS),
    "resume_writing: context of a task": Fault(fixed_in((3, 15, 0))),
    "connection_lost: context of a task": Fault(fixed_in((3, 15, 0))),
    "pipe: resume_reading: context of a task": Fault(ALWAYS),
    "pipe: resume_writing: context of a task": Fault(ALWAYS),
    "pipe: connection_lost: context of a task": Fault(ALWAYS),
    "accept: one context for all": Fault(NEVER, ALWAYS),
    # Fds.
    "reused fd": Fault(ALWAYS, sure=False),
    "reused fd in one turn": Fault(NEVER),
    "sendfile: abort hangs": Fault(ALWAYS),
    "sendfile: abort poisons the fd": Fault(ALWAYS),
    "accept: EMFILE floods the log": Fault(ALWAYS),
    # Flow control.
    "datagrams: count leaks": Fault(fixed_in((3, 14, 10), since=(3, 12)), sure=False),
    "max_size is ignored": Fault(NEVER),
    # TLS.
    "start_tls: data that was read before": Fault(fixed_in((3, 14, 10)), ALWAYS, sure=False),
    # Processes and threads.
    "fork: the child breaks the parent": Fault(ALWAYS, ALWAYS, sure=False),
    "fork: the child wakes the parent": Fault(ALWAYS, sure=False),
    "fork: the child gets no explanation": Fault(ALWAYS, ALWAYS),
    "debug: write from another thread": Fault(ALWAYS, ALWAYS),
}

OURS: set[str] = set()


def pending(name: str) -> list[pytest.MarkDecorator]:
    """The marks of a test that runs on ours, while ours has the fault."""
    return [pytest.mark.xfail(strict=False, reason=f"issue 16: {name}")] if name in OURS else []


def _uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


if HAS_UVLOOP:
    _uvloop().close()  # The first one opens a pipe for the signals of all, which stays.

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": FACTORIES["asyncio"],
    "uvloop": _uvloop,
    "pyepoll": FACTORIES["pyepoll"],
}


@dataclass(frozen=True)
class Side:
    """A loop under test."""

    name: str
    patience: float
    """Seconds after which what should happen counts as never happening: few where a fault is expected."""

    def run(self, scenario: Callable[[], Coroutine[Any, Any, T]], *, debug: bool | None = None) -> T:
        """Run a coroutine in a new loop. Fails if it has not ended when the patience ends.

        Connections that a fault leaves behind are collected without a warning.
        """

        async def limited() -> T:
            async with asyncio.timeout(self.patience):
                return await scenario()

        def in_a_loop() -> T:
            with asyncio.Runner(debug=debug, loop_factory=LOOPS[self.name]) as runner:
                runner.get_loop().slow_callback_duration = 1000
                return runner.run(limited())

        if self.name == "pyepoll" and self.patience == PATIENCE:
            return in_a_loop()
        # A failure is expected. Nothing may refer to what it leaves behind: it would be collected, with
        # warnings, in the course of another test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                return in_a_loop()
            except Exception as error:
                text = "".join(traceback.format_exception(error))
            finally:
                gc.collect()
        raise AssertionError(text)


PATIENCE = 20.0
IMPATIENCE = 0.1


def sides(name: str) -> pytest.MarkDecorator:
    """Run a test on each loop, as the parameter `side`; it is expected to fail where the fault is."""
    fault = FAULTS[name]
    version = ".".join(map(str, VERSION))
    has = {
        "asyncio": (fault.asyncio, fault.sure, f"asyncio of {version} has this fault"),
        "uvloop": (fault.uvloop, False, "uvloop has this fault"),
        "pyepoll": (name in OURS, False, "issue 16"),
    }

    def marks(loop: str) -> list[pytest.MarkDecorator]:
        faulty, strict, reason = has[loop]
        made = [pytest.mark.xfail(strict=strict, reason=f"{reason}: {name}")] if faulty else []
        if loop == "uvloop" and not HAS_UVLOOP:
            made.append(pytest.mark.skip(reason="uvloop is not installed"))
        return made

    params = [
        pytest.param(Side(loop, IMPATIENCE if has[loop][0] else PATIENCE), id=loop, marks=marks(loop))
        for loop in LOOPS
    ]
    return pytest.mark.parametrize("side", params)


@contextlib.contextmanager
def closing(*socks: socket.socket) -> Iterator[None]:
    """Close the sockets at the end, whatever happens."""
    try:
        yield
    finally:
        for sock in socks:
            sock.close()
