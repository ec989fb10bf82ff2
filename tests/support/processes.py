"""Programs in an interpreter of their own, and functions in a fork."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable

_ASAN, _TSAN = (hasattr(ctypes.CDLL(None), name) for name in ("__asan_init", "__tsan_init"))

SANITIZED = _ASAN or _TSAN
"""Whether a sanitizer keeps memory of its own in this process: its size is then no measure of leaks."""

HANG = 600 if _TSAN else 200 if _ASAN else 60
"""Seconds after which a test counts as hung, and fails."""


def run(program: str) -> str:
    """Run a program in an interpreter of its own; return its output, fail with its complaints."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=HANG / 2,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fork(seconds: int = 0) -> int:
    """os.fork(), also where there are threads: their state in the child is tested.

    A child that still runs after so many seconds prints its stack and ends; 0 means no limit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0 and seconds > 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)
        signal.alarm(seconds)
    return child


SECONDS = HANG // 3
"""After so many seconds SIGALRM ends a child that hangs."""


def begin(program: Callable[[], object]) -> tuple[int, int]:
    """Run a function in a fork; return the child and a pipe from it."""
    report, write = os.pipe()
    child = fork(SECONDS)
    if child == 0:
        # pytest's handling of an exception, and of exit, belongs to the parent.
        try:
            program()
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(0)
    os.close(write)
    return child, report


def end(child: int, report: int) -> str:
    """The traceback of a child's exception, and how it died if it did."""
    with open(report) as file:
        text = file.read()
    status = os.waitpid(child, 0)[1]
    return text if status == 0 else f"{text}the child ended with status {status:#x}"


def in_child(program: Callable[[], object]) -> str:
    """Run a function in a fork, and wait for its end."""
    return end(*begin(program))
