"""A test that hangs fails, with the stack of every thread, and the session goes on.

pytest-timeout cannot do this here: its method "signal" takes SIGALRM and setitimer(2), which many tests use
themselves, and its method "thread" ends the session. This guard uses a timer of timer_create(2) and a
real-time signal instead: no thread that a test would find, and nothing that a child inherits.

A hang in C code that no signal interrupts is left to faulthandler, which ends the session; the stack that it
prints has the id of the test.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

SIGNAL = signal.SIGRTMAX - 1
"""Valgrind needs the last one."""

AGAIN = 10
"""Seconds until a test that hung and hangs again, as it is torn down, is interrupted again."""

GRACE = 30
"""Seconds that a test which was interrupted has to come to its end, before the session is ended."""


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("padding", ctypes.c_char * 44),
    )


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Guard:
    """Interrupts the main thread when a test has run for too long."""

    def __init__(self, stderr: int) -> None:
        """stderr: the fd that the session's end is reported to."""
        self._stderr = stderr
        self._seconds = 0.0
        self._has_interrupted = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        signal.signal(SIGNAL, self._interrupt)
        sigev_thread_id, clock_monotonic = 4, 1
        event = _Sigevent(None, SIGNAL, sigev_thread_id, threading.get_native_id())
        self._check(self._libc.timer_create(clock_monotonic, ctypes.byref(event), ctypes.byref(self._timer)))

    def start(self, test: pytest.Function, seconds: float) -> None:
        """Let a test fail that is not done after so many seconds."""
        # So that the stack names the test, parameters and all.
        function: Any = getattr(test.function, "__func__", test.function)
        function.__code__ = function.__code__.replace(co_name=test.nodeid, co_qualname=test.nodeid)
        self._seconds = seconds
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=self._stderr)
        self._set(_Itimerspec(AGAIN, 0, int(seconds), int(seconds % 1 * 1e9)))

    def stop(self) -> None:
        self._set(_Itimerspec())
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Keep the session's end from waiting indefinitely for threads of tests that hung."""
        if self._has_interrupted:
            faulthandler.dump_traceback_later(GRACE, exit=True, file=self._stderr)

    def _set(self, when: _Itimerspec) -> None:
        self._check(self._libc.timer_settime(self._timer, 0, ctypes.byref(when), None))

    def _check(self, result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _interrupt(self, number: int, frame: object) -> None:
        self._has_interrupted = True
        faulthandler.dump_traceback(2)  # pytest shows it with the failure.
        pytest.fail(f"the test hangs: not done after {self._seconds:g} s")


def accept_ignored_signals() -> None:
    """Let the programs that tests start get the signals that this process was started to ignore.

    A shell lets its background jobs ignore SIGINT and SIGQUIT, and nohup SIGHUP. A child inherits that, but
    not a handler; this one ignores the signal for this process as before.
    """
    of_python = {signal.SIGPIPE, signal.SIGXFSZ}  # subprocess restores them.
    for number in signal.valid_signals() - of_python:
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError):  # valgrind keeps one for itself
                signal.signal(number, _ignore)


def _ignore(number: int, frame: object) -> None:
    pass


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program in a session of its own; whatever of it is left at the end of the block is killed."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            end_session(process)


def end_session(process: subprocess.Popen[Any]) -> None:
    """Kill a program that has a session of its own, and its children, unless it has ended."""
    # Not after it was reaped, when its pid may be another process's.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
