"""A wait lasts as long as its timeout: never shorter, for every kind of number."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from support.effort import Effort
from support.processes import run
from support.threads import lets_go_of_the_gil, until, waiters

import pyepoll
from pyepoll import Event, _epoll

Eventfd = Callable[..., int]
Wait = Callable[..., list[tuple[Any, Event]]]

GENEROUS = 5.0
"""A call that returns within this did not wait indefinitely."""

TAKES_REAL = sys.version_info >= (3, 15)
"""Whether stock takes any object with __float__ as a timeout, and so ours does."""

takes_real = pytest.mark.skipif(not TAKES_REAL, reason="stock refuses it before CPython 3.15")


class Index:
    """Not an int, but one in all that counts."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:  # for the ids of tests
        return f"Index({self.value})"


@pytest.fixture(params=[True, False], ids=["pwait2", "fallback"], autouse=True)
def syscall(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with epoll_pwait2 and without."""
    before = _epoll.use_pwait2(request.param)
    yield
    _epoll.use_pwait2(before)


def by_poll(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return ep.poll(*args)


def by_wait(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return list(ep.wait(*args))


@pytest.fixture(params=[by_poll, by_wait])
def wait(request: pytest.FixtureRequest) -> Wait:
    got: Wait = request.param
    return got


def test_use_pwait2_returns_the_old_value() -> None:
    before = _epoll.use_pwait2(False)
    assert _epoll.use_pwait2(True) is False
    assert _epoll.use_pwait2(before) is True


# How long.


@pytest.mark.parametrize("timeout", [1e-9, 0.0002, 0.01, 0.0105, 5e-324])
def test_a_wait_never_ends_early(ep: pyepoll.Epoll[int], wait: Wait, timeout: float) -> None:
    for _ in range(3):
        before = ep.stats().waits
        start = time.monotonic()
        assert wait(ep, timeout) == []
        assert time.monotonic() - start >= timeout
        assert ep.stats().waits - before <= 3, "it sleeps, and does not poll until the time has come"


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
def test_a_negative_timeout_polls_once(
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
def test_a_long_timeout_waits_for_the_event(
    pool: ThreadPoolExecutor, ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    waiting = pool.submit(wait, ep, timeout)
    until(lambda: waiters() == 1)
    os.eventfd_write(fd, 1)
    assert waiting.result(GENEROUS) == [(fd, Event.IN)]


def test_no_argument_waits_indefinitely(
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


# Objects with __float__: test_select_dropin.py compares them with stock on every version.


@takes_real
@pytest.mark.parametrize("timeout", [Decimal("0.0105"), Fraction(1, 100), Decimal("1e-9")], ids=repr)
def test_a_number_of_another_type_is_never_early(ep: pyepoll.Epoll[int], wait: Wait, timeout: Any) -> None:
    start = time.monotonic()
    assert wait(ep, timeout) == []
    assert time.monotonic() - start >= timeout


@takes_real
@pytest.mark.parametrize("timeout", [Decimal(0), Decimal("-0.5"), Decimal(-2), Decimal("-inf")], ids=repr)
def test_a_negative_number_of_another_type_polls_once(
    ep: pyepoll.Epoll[int], wait: Wait, timeout: Any
) -> None:
    start = time.monotonic()
    assert wait(ep, timeout) == []
    assert time.monotonic() - start < GENEROUS


@takes_real
@pytest.mark.parametrize("timeout", [Decimal(-1), Fraction(-1), Decimal("inf"), Decimal("1e300")], ids=repr)
def test_a_long_number_of_another_type_waits_for_the_event(
    pool: ThreadPoolExecutor, ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    waiting = pool.submit(wait, ep, timeout)
    until(lambda: waiters() == 1)
    os.eventfd_write(fd, 1)
    assert waiting.result(GENEROUS) == [(fd, Event.IN)]


@takes_real
def test_an_exception_of_float_is_raised(ep: pyepoll.Epoll[int], wait: Wait) -> None:
    class Odd:
        def __float__(self) -> float:
            raise LookupError("odd")

    with pytest.raises(LookupError, match="odd"):
        wait(ep, Odd())
    with pytest.raises(ValueError, match="nan"):
        wait(ep, Decimal("nan"))


# Invalid timeouts.


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (math.nan, ValueError),
        (-math.nan, ValueError),
        ("1", TypeError),
        (b"1", TypeError),
        ([], TypeError),
        (1j, TypeError),
        *([] if TAKES_REAL else [(Decimal("0.1"), TypeError), (Fraction(1, 10), TypeError)]),
        (NotImplemented, TypeError),
    ],
    ids=repr,
)
def test_an_invalid_timeout_is_refused(
    ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait, timeout: Any, error: type[Exception]
) -> None:
    # Something is ready, so that a timeout that is not refused cannot hang.
    ep.register(eventfd(1), Event.IN)
    with pytest.raises(error):
        wait(ep, timeout)


def test_a_deadline_passed_before_the_system_call_ends_the_wait(
    ep: pyepoll.Epoll[int], wait: Wait, effort: Effort
) -> None:
    """The rest is then negative, which would mean indefinitely to the kernel."""
    for nanoseconds in range(1, 3000, effort(7, 1)):
        assert wait(ep, nanoseconds * 1e-9) == []


def test_an_exception_of_index_is_raised(ep: pyepoll.Epoll[int], wait: Wait) -> None:
    class Odd:
        def __index__(self) -> int:
            raise LookupError("odd")

    with pytest.raises(LookupError, match="odd"):
        wait(ep, Odd())


def test_a_float_subclass_is_a_timeout(ep: pyepoll.Epoll[int], wait: Wait) -> None:
    class Seconds(float):
        pass

    start = time.monotonic()
    assert wait(ep, Seconds(0.01)) == []
    assert time.monotonic() - start >= 0.01


# The GIL.


@pytest.mark.parametrize("timeout", [0, -2, 1e-9, 0.001])
def test_every_timeout_releases_the_gil(ep: pyepoll.Epoll[int], wait: Wait, timeout: float) -> None:
    assert lets_go_of_the_gil(lambda: wait(ep, timeout))


# Where epoll_pwait2 is missing or forbidden.


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_kernel_without_pwait2_rounds_up(error: str) -> None:
    printed = run(
        f"""
        import errno, os, time
        from support.seccomp import deny
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
        print(pyepoll._epoll.use_pwait2(True))
        """
    )
    assert printed.strip() == "False", "the first call's refusal holds for the rest of the process"
