"""A wait lasts as long as it was told: never shorter, whatever the number and whoever interrupts."""

import ctypes
import decimal
import fractions
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import lets_go_of_the_gil, run, until, waiters

import pyepoll
from pyepoll import Event, _epoll

Eventfd = Callable[..., int]
Wait = Callable[..., list[tuple[Any, Event]]]

GENEROUS = 5.0
"""What returns within this was not waiting for ever."""


class Index:
    """Not an int, but one in all that counts."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.fixture(params=[True, False], ids=["pwait2", "fallback"], autouse=True)
def syscall(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with epoll_pwait2 and without."""
    before = _epoll._use_pwait2(request.param)
    yield
    _epoll._use_pwait2(before)


def by_poll(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return ep.poll(*args)


def by_wait(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return list(ep.wait(*args))


@pytest.fixture(params=[by_poll, by_wait])
def wait(request: pytest.FixtureRequest) -> Wait:
    got: Wait = request.param
    return got


def test_forced_fallback_says_what_it_replaced() -> None:
    before = _epoll._use_pwait2(False)
    assert _epoll._use_pwait2(True) is False
    assert _epoll._use_pwait2(before) is True


# How long.


@pytest.mark.parametrize("timeout", [1e-9, 0.0002, 0.01, 0.0105, 5e-324])
def test_never_early(ep: pyepoll.Epoll[int], wait: Wait, timeout: float) -> None:
    for _ in range(3):
        before = ep.stats()["waits"]
        start = time.monotonic()
        assert wait(ep, timeout) == []
        assert time.monotonic() - start >= timeout
        assert ep.stats()["waits"] - before <= 3, "it sleeps, and does not poll until the time has come"


@pytest.mark.parametrize(
    "timeout",
    [
        0,
        0.0,
        -0.0,
        False,
        Index(0),
        -0.5,
        -2,
        -2.0,
        -1.5,
        -1e-9,
        -5e-324,
        -(10**30),
        -1e300,
        -math.inf,
        Index(-5),
    ],
    ids=repr,
)
def test_what_has_passed_polls_once(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    start = time.monotonic()
    assert wait(ep, timeout) == []
    assert time.monotonic() - start < GENEROUS
    os.eventfd_write(fd, 1)
    assert wait(ep, timeout) == [(fd, Event.IN)]


@pytest.mark.parametrize(
    "timeout",
    [
        *(None, -1, -1.0, Index(-1), math.inf),
        *(30, True, 30.0, Index(30), 2147483, 2147484, 4294968, 2**31, 2**32, 2**63 - 1, 2**63, 2**64),
        *(9.3e9, 1e10, 1.9e19, 1e300, 10**30, Index(10**30)),
    ],
    ids=repr,
)
def test_what_is_long_waits_for_the_event(
    pool: ThreadPoolExecutor, ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    waiting = pool.submit(wait, ep, timeout)
    until(lambda: waiters() == 1)
    os.eventfd_write(fd, 1)
    assert waiting.result(GENEROUS) == [(fd, Event.IN)]


def test_no_argument_waits_for_ever(
    pool: ThreadPoolExecutor, ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    waiting = pool.submit(wait, ep)
    until(lambda: waiters() == 1)
    time.sleep(0.03)
    assert not waiting.done()
    os.eventfd_write(fd, 1)
    assert waiting.result(GENEROUS) == [(fd, Event.IN)]


def test_true_is_one_second(ep: pyepoll.Epoll[int]) -> None:
    start = time.monotonic()
    assert ep.poll(True) == []
    assert time.monotonic() - start >= 1


def test_wait_waits_when_called(ep: pyepoll.Epoll[int]) -> None:
    start = time.monotonic()
    events = ep.wait(0.02)
    assert time.monotonic() - start >= 0.02
    assert list(events) == []


# What is refused.


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (math.nan, ValueError),
        (-math.nan, ValueError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
        (1j, TypeError),
        (decimal.Decimal("0.1"), TypeError),
        (fractions.Fraction(1, 10), TypeError),
        (object(), TypeError),
    ],
    ids=repr,
)
def test_refused(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any, error: type[Exception]
) -> None:
    # Something is ready, so that what should be refused cannot hang.
    ep.register(eventfd(1), Event.IN)
    with pytest.raises(error):
        wait(ep, timeout)


def test_what_index_raises_comes_out(ep: pyepoll.Epoll[int], wait: Wait) -> None:
    class Odd:
        def __index__(self) -> int:
            raise LookupError("odd")

    with pytest.raises(LookupError, match="odd"):
        wait(ep, Odd())


def test_float_subclass(ep: pyepoll.Epoll[int], wait: Wait) -> None:
    class Seconds(float):
        pass

    start = time.monotonic()
    assert wait(ep, Seconds(0.01)) == []
    assert time.monotonic() - start >= 0.01


# Signals.


class Alarms:
    """Signals every few milliseconds; they stop by themselves, so that a wait that restarts can end."""

    def __init__(self) -> None:
        self.count = 0
        self.until = time.monotonic() + GENEROUS

    def __call__(self, number: int, frame: object) -> None:
        self.count += 1
        if time.monotonic() > self.until:
            signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    alarms = Alarms()
    old = signal.signal(signal.SIGALRM, alarms)
    yield alarms
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_eintr_keeps_the_deadline(ep: pyepoll.Epoll[int], wait: Wait, alarms: Alarms) -> None:
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    assert wait(ep, 0.1) == []
    assert 0.1 <= time.monotonic() - start < GENEROUS
    assert alarms.count >= 2


def test_eintr_of_an_endless_wait(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, alarms: Alarms
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)

    def third(number: int, frame: object) -> None:
        alarms(number, frame)
        if alarms.count == 3:
            os.eventfd_write(fd, 1)

    signal.signal(signal.SIGALRM, third)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    assert wait(ep, None) == [(fd, Event.IN)]
    assert alarms.count >= 3


@pytest.mark.parametrize("start", [by_poll, by_wait, lambda ep, timeout: next(iter(ep))])
@pytest.mark.parametrize("timeout", [None, 30])
def test_a_handlers_exception_comes_out(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, alarms: Alarms, start: Callable[..., object], timeout: Any
) -> None:
    def handler(number: int, frame: object) -> None:
        raise ZeroDivisionError

    fd = eventfd()
    ep.register(fd, Event.IN)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(ZeroDivisionError):
        start(ep, timeout)
    os.eventfd_write(fd, 1)
    assert ep.poll(0) == [(fd, Event.IN)]


class Pending:
    """A timeout that leaves a signal pending: raise(3) runs no bytecode, and so not the handler."""

    __index__ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(
        ("raise", ctypes.CDLL(None)), ((1, "number", signal.SIGUSR1),)
    )
    __index__.restype = int(GENEROUS).__add__  # raise(3) returns 0.


@pytest.fixture
def handler_writes(ep: pyepoll.Epoll[int], eventfd: Eventfd) -> Iterator[int]:
    """An eventfd, registered, that SIGUSR1's handler makes ready."""
    fd = eventfd()
    ep.register(fd, Event.IN)
    old = signal.signal(signal.SIGUSR1, lambda number, frame: os.eventfd_write(fd, 1))
    yield fd
    signal.signal(signal.SIGUSR1, old)


def test_a_pending_signal_is_handled_before_the_wait(
    ep: pyepoll.Epoll[int], wait: Wait, handler_writes: int
) -> None:
    start = time.monotonic()
    assert wait(ep, Pending()) == [(handler_writes, Event.IN)]
    assert time.monotonic() - start < GENEROUS


class PendingPoll(Pending):
    """The same with a timeout of 0."""

    __index__ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(
        ("raise", ctypes.CDLL(None)), ((1, "number", signal.SIGUSR1),)
    )


def test_a_pending_signal_is_handled_before_the_poll(
    ep: pyepoll.Epoll[int], wait: Wait, handler_writes: int
) -> None:
    assert wait(ep, PendingPoll()) == [(handler_writes, Event.IN)]


def test_a_pending_signals_exception_comes_out(
    ep: pyepoll.Epoll[int], wait: Wait, handler_writes: int
) -> None:
    def handler(number: int, frame: object) -> None:
        raise ZeroDivisionError

    signal.signal(signal.SIGUSR1, handler)
    with pytest.raises(ZeroDivisionError):
        wait(ep, Pending())


# The signal mask.


def test_sigmask_blocks_while_it_waits(ep: pyepoll.Epoll[int], alarms: Alarms) -> None:
    handled: list[float] = []
    signal.signal(signal.SIGALRM, lambda number, frame: handled.append(time.monotonic()))
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    assert list(ep.wait(0.08, sigmask={signal.SIGALRM})) == []
    assert time.monotonic() - start >= 0.08
    assert len(handled) == 1
    assert handled[0] - start >= 0.08


def test_sigmask_lets_through_what_was_blocked(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, alarms: Alarms
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    signal.signal(signal.SIGALRM, lambda number, frame: os.eventfd_write(fd, 1))
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        signal.raise_signal(signal.SIGALRM)
        assert ep.poll(0.01) == []
        assert list(ep.wait(GENEROUS, sigmask=())) == [(fd, Event.IN)]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == old | {signal.SIGALRM}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@pytest.mark.parametrize(
    ("sigmask", "errors"),
    [
        ([0], (ValueError,)),
        ([65], (ValueError,)),
        ([-1], (ValueError,)),
        ([2**100], (ValueError, OverflowError)),
        (1, (TypeError,)),
        (["1"], (TypeError,)),
        ("x", (TypeError,)),
    ],
    ids=repr,
)
def test_sigmask_refused(ep: pyepoll.Epoll[int], sigmask: Any, errors: tuple[type[Exception], ...]) -> None:
    with pytest.raises(errors):
        ep.wait(0, sigmask=sigmask)
    assert list(ep.wait(0, sigmask=None)) == []


# The GIL.


@pytest.mark.parametrize("timeout", [0, -2, 1e-9, 0.001])
def test_the_gil_is_let_go_with_any_timeout(ep: pyepoll.Epoll[int], wait: Wait, timeout: float) -> None:
    assert lets_go_of_the_gil(lambda: wait(ep, timeout))


# Where epoll_pwait2 is missing or forbidden.


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_kernel_without_pwait2(error: str) -> None:
    printed = run(
        f"""
        import errno, os, time
        from conftest import deny
        deny("epoll_pwait2", errno.{error})
        import pyepoll
        with pyepoll.Epoll() as ep:
            for wait in (ep.poll, ep.wait):
                for timeout in (1e-9, 0.0002, 0.0105):
                    start = time.monotonic()
                    assert list(wait(timeout)) == []
                    assert time.monotonic() - start >= timeout
            fd = os.eventfd(1)
            ep.register(fd, pyepoll.Event.IN)
            for timeout in (None, 0, 0.5, 1e300):
                assert ep.poll(timeout) == [(fd, pyepoll.Event.IN)]
                assert list(ep.wait(timeout, sigmask=())) == [(fd, pyepoll.Event.IN)]
        print(pyepoll._epoll._use_pwait2(True))
        """
    )
    assert printed.strip() == "False", "the first call's refusal holds for the rest of the process"
