"""Timer: never early, no expiration is lost or counted twice, and a closed timer touches no fd."""

import errno
import itertools
import math
import os
import random
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from support.fds import no_fd_left, open_fds
from support.processes import SANITIZED, in_child, run
from support.threads import until

import pyepoll
from pyepoll import Event, Timer

Epoll = pyepoll.Epoll[Any]

SECOND = 10**9

CLOCKS = {
    "monotonic": time.CLOCK_MONOTONIC,
    "boottime": time.CLOCK_BOOTTIME,
    "realtime": time.CLOCK_REALTIME,
}
clocks = pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)


def seen_by_the_kernel(timer: Timer) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{timer.fileno()}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def nanoseconds(timer: Timer, which: str) -> int:
    """The interval or the remaining time as the kernel has it."""
    seconds, rest = seen_by_the_kernel(timer)[which].strip("()").split(",")
    return int(seconds) * SECOND + int(rest)


@clocks
def test_expires_once_and_never_early(ep: Epoll, clock: int) -> None:
    with Timer(clock=clock) as timer:
        ep.register(timer, Event.IN, timer)
        for delay in (0.001, 0.02, random.uniform(0, 0.01)):
            began = time.clock_gettime_ns(clock)
            timer.set(delay)
            assert ep.poll(10) == [(timer, Event.IN)]
            assert time.clock_gettime_ns(clock) - began >= delay * SECOND
            assert timer.remaining() is None
            assert (timer.read(), timer.read()) == (1, 0)
            assert ep.poll(0.01) == []


@clocks
@pytest.mark.parametrize("kind", [int, float])
def test_an_absolute_time_is_never_early(ep: Epoll, clock: int, kind: type) -> None:
    with Timer(clock=clock) as timer:
        ep.register(timer, Event.IN)
        when = time.clock_gettime(clock) + 0.02
        when = math.ceil(when) if kind is int else when
        timer.set_at(when)
        assert timer.clock == clock
        assert ep.poll(10) != []
        # As a fraction: the product of a float of this size would be rounded by 100 ns.
        assert time.clock_gettime_ns(clock) >= Fraction(when) * SECOND
        assert timer.read() == 1


@pytest.mark.parametrize("delay", [0, -1, -1e300, -math.inf, 0.0, -(2**80)])
def test_a_time_that_has_passed_expires_at_once(ep: Epoll, delay: float) -> None:
    with Timer() as timer:
        ep.register(timer, Event.IN)
        for setting in timer.set, timer.set_at:
            setting(delay)
            assert ep.poll(10) != []
            assert timer.read() == 1


@pytest.mark.parametrize("delay", [math.inf, 1e300, 2**80, 10**10])
def test_a_time_far_away_does_not_overflow(ep: Epoll, delay: float) -> None:
    with Timer(delay) as timer:
        ep.register(timer, Event.IN)
        for setting in timer.set, timer.set_at:
            setting(delay)
            assert ep.poll(0.001) == []
            assert (timer.read(), (timer.remaining() or 0) > 9e9) == (0, True)


def test_overruns_are_counted_exactly() -> None:
    """As many as intervals have passed since the first expiration, neither more nor fewer."""
    delay, interval = 5_000_000, 1_000_000
    for _ in range(20):
        before = time.monotonic_ns()
        with Timer(delay / SECOND, interval / SECOND) as timer:
            after = time.monotonic_ns()
            total = 0
            for _ in range(4):
                time.sleep(random.uniform(0, 0.006))
                earliest = time.monotonic_ns()
                total += timer.read()
                latest = time.monotonic_ns()
                least = max(0, (earliest - after - delay) // interval + 1)
                most = max(0, (latest - before - delay) // interval + 1)
                assert least <= total <= most


def test_each_expiration_goes_to_one_reader(pool: ThreadPoolExecutor, fast_switching: None) -> None:
    delay = interval = 200_000
    before = time.monotonic_ns()
    timer = Timer(interval=interval / SECOND)
    after, end = time.monotonic_ns(), time.monotonic() + 0.2

    def work() -> int:
        total = 0
        while time.monotonic() < end:
            total += timer.read()
        return total

    readers = [pool.submit(work) for _ in range(4)]
    total = sum(each.result() for each in readers)
    earliest = time.monotonic_ns()
    total += timer.read()
    timer.close()
    assert (earliest - after - delay) // interval + 1 <= total
    assert total <= (time.monotonic_ns() - before - delay) // interval + 1


@pytest.mark.parametrize(
    ("arguments", "first", "interval"),
    [
        ((), 0, 0),
        ((None,), 0, 0),
        ((None, 0), 0, 0),
        ((100,), 100 * SECOND, 0),
        ((100, 7), 100 * SECOND, 7 * SECOND),
        ((None, 50), 50 * SECOND, 50 * SECOND),
        ((100.0, 0.25), 100 * SECOND, SECOND // 4),
        ((Fraction(201, 2), Decimal("1.000000001")), 100 * SECOND + SECOND // 2, SECOND + 1),
    ],
)
def test_what_the_constructor_sets(arguments: tuple[Any, ...], first: int, interval: int) -> None:
    with Timer(*arguments) as timer:
        left = nanoseconds(timer, "it_value")
        assert left == 0 if first == 0 else first - SECOND < left <= first
        assert nanoseconds(timer, "it_interval") == interval
        assert timer.interval() == interval / SECOND
        remaining = timer.remaining()
        assert remaining is None if first == 0 else 0 < (remaining or 0) <= first / SECOND


@hypothesis.given(st.floats(0, 2**33) | st.integers(0, 2**33) | st.fractions(0, 2**20))
@hypothesis.settings(max_examples=300, deadline=None, database=None)
@hypothesis.example(1.1)
@hypothesis.example(1e-300)
def test_an_interval_is_rounded_to_nanoseconds(interval: Any) -> None:
    """To the nearest: 1.1 is a little more than 11/10."""
    exact = Fraction(float(interval) if isinstance(interval, Fraction) else interval) * SECOND
    with Timer(1, interval) as timer:
        rounded = nanoseconds(timer, "it_interval")
        assert abs(rounded - exact) <= Fraction(500_001, 1_000_000) or (rounded, exact < 1) == (1, True)
        assert (rounded > 0) is (exact > 0)
        timer.set(2, interval)
        assert nanoseconds(timer, "it_interval") == rounded


def test_an_interval_means_what_it_says() -> None:
    for tenths in range(1, 1000):
        with Timer(1, tenths / 10) as timer:
            assert (nanoseconds(timer, "it_interval"), timer.interval()) == (
                tenths * SECOND // 10,
                tenths / 10,
            )


def test_set_replaces_what_was_set_and_what_has_expired(ep: Epoll) -> None:
    with Timer(0, 0.000001) as timer:
        ep.register(timer, Event.IN)
        assert ep.poll(10) != []
        timer.set(100)
        assert (ep.poll(0), timer.read()) == ([], 0)
        timer.set(delay=0, interval=0)
        assert ep.poll(10) != []


def test_cancel_stops_it_and_forgets_what_has_expired(ep: Epoll) -> None:
    with Timer(0, 0.000001) as timer:
        ep.register(timer, Event.IN)
        assert ep.poll(10) != []
        timer.cancel()
        assert (ep.poll(0.01), timer.read(), timer.remaining(), timer.interval()) == ([], 0, None, 0)


def test_an_edge_for_each_expiration_without_a_read(ep: Epoll) -> None:
    with Timer(interval=0.01) as timer:
        ep.register(timer, Event.IN | Event.ET, "tick")
        assert ep.poll(10) == [("tick", Event.IN)]
        assert ep.poll(0) == []  # the kernel starts a periodic timer again when it is read
        assert timer.read() >= 1
        assert ep.poll(10) == [("tick", Event.IN)]


# The clock that can be set. No test sets it: it is the machine's.


def test_cancel_on_set_reaches_the_kernel() -> None:
    with Timer(clock=time.CLOCK_REALTIME) as timer:
        when = time.time() + 100
        timer.set_at(when)
        assert seen_by_the_kernel(timer)["settime flags"] == "01"
        timer.set_at(when, cancel_on_set=True)
        assert seen_by_the_kernel(timer)["settime flags"] == "03"
        timer.set(100)
        assert seen_by_the_kernel(timer)["settime flags"] == "00"


@pytest.mark.parametrize("clock", [time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME])
def test_cancel_on_set_needs_the_clock_that_can_be_set(clock: int) -> None:
    with Timer(clock=clock) as timer, pytest.raises(ValueError, match="CLOCK_REALTIME"):
        timer.set_at(5, cancel_on_set=True)


CANCELED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int file = -1;
static int reports;

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
    int (*next)(int, int, const struct itimerspec *, struct itimerspec *) =
        dlsym(RTLD_NEXT, "timerfd_settime");
    int status = next(fd, flags, new, old);
    if ((flags & 2) != 0 && file != fd) {
        file = fd;
        reports = 1;
        errno = ECANCELED;
        return -1;
    }
    return status;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    if (fd >= 0 && fd == file && reports-- > 0) {
        errno = ECANCELED;
        return -1;
    }
    return next(fd, buffer, size);
}
"""
"""The kernel after the clock was set: it says so at the next setting, although it has set the timer, and at
the next read."""


def test_a_clock_that_was_set_is_reported_once(preload: Callable[[str], None]) -> None:
    preload(CANCELED)
    program = """
    import errno, time
    from pyepoll import Timer
    with Timer(clock=time.CLOCK_REALTIME) as timer:
        timer.set_at(time.time() - 1, cancel_on_set=True)  # set all the same: no error
        try:
            timer.read()
        except OSError as error:
            assert error.errno == errno.ECANCELED and "the clock was set" in str(error)
            print("canceled")
        print(timer.read())
    """
    assert run(program).split() == ["canceled", "1"]


# Errors and ends.


@pytest.mark.parametrize("method", ["set", "set_at"])
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((math.nan,), ValueError, "not nan"),
        ((1, math.nan), ValueError, "interval must be a number of seconds, not nan"),
        ((1, -0.5), ValueError, "interval must be 0"),
        ((1, -1), ValueError, "interval must be 0"),
        ((1, math.inf), ValueError, "interval must be 0"),
        ((1, 2**70), ValueError, "interval must be 0"),
        (("1",), TypeError, "must be a number of seconds, not str"),
        ((None,), TypeError, "must be a number of seconds, not NoneType"),
        ((1, None), TypeError, "interval must be a number of seconds, not NoneType"),
        ((1j,), TypeError, "must be a number of seconds, not complex"),
        ((), TypeError, "missing required argument"),
    ],
)
def test_what_is_refused_changes_nothing(
    method: str, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    with Timer(100, 50) as timer:
        with pytest.raises(error, match=text):
            getattr(timer, method)(*arguments)
        assert (timer.interval(), (timer.remaining() or 0) > 50) == (50, True)
    if arguments and arguments != (None,):
        fds = open_fds()
        with pytest.raises(error, match=text):
            Timer(*arguments)
        assert open_fds() == fds


@pytest.mark.parametrize("clock", [-7, 99, time.CLOCK_PROCESS_CPUTIME_ID])
def test_a_clock_without_timers(clock: int) -> None:
    with pytest.raises(OSError, match=rf"timerfd_create\(clock {clock}, ") as caught:
        Timer(clock=clock)
    assert caught.value.errno == errno.EINVAL


def test_the_clock_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        Timer(1, 2, time.CLOCK_MONOTONIC)  # type: ignore[call-arg]


def test_no_fd_left() -> None:
    with no_fd_left(), pytest.raises(OSError, match="timerfd_create") as caught:
        Timer(1)
    assert caught.value.errno == errno.EMFILE


def calls(timer: Timer) -> list[Callable[[], object]]:
    return [
        timer.read,
        timer.cancel,
        timer.remaining,
        timer.interval,
        lambda: timer.set(1),
        lambda: timer.set_at(1, cancel_on_set=timer.clock == time.CLOCK_REALTIME),
    ]


def test_closed_touches_no_fd() -> None:
    timer = Timer(1)
    number = timer.fileno()
    timer.close()
    with Timer(100, 50) as unrelated:
        assert unrelated.fileno() == number
        for call in [*calls(timer), timer.fileno, timer.__enter__]:
            with pytest.raises(ValueError, match="closed timer"):
                call()
        timer.close()
        assert timer.closed
        assert repr(timer) == "<pyepoll.Timer closed>"
        del timer
        assert (unrelated.interval(), unrelated.closed) == (50, False)


def test_an_fd_that_was_closed_elsewhere_is_an_error() -> None:
    timer = Timer(1)
    os.close(timer.fileno())
    for call in [*calls(timer), timer.close]:
        with pytest.raises(OSError, match="timerfd") as caught:
            call()
        assert caught.value.errno == errno.EBADF
    timer.close()


def test_is_closed_when_it_is_dropped() -> None:
    number = Timer(1).fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_close_in_one_thread_and_calls_in_others(pool: ThreadPoolExecutor, fast_switching: None) -> None:
    """Each works or says that the timer is closed; none reaches the timer that gets the fd."""
    for _ in range(30):
        timer = Timer(clock=time.CLOCK_REALTIME)

        def work(timer: Timer = timer) -> None:
            try:
                for call in itertools.cycle(calls(timer)):
                    call()
            except ValueError:
                return

        working = [pool.submit(work) for _ in range(4)]
        time.sleep(0.001)
        number = timer.fileno()
        timer.close()
        with Timer(100, 50) as unrelated:
            assert unrelated.fileno() == number
            for each in working:
                each.result(10)
            assert (unrelated.interval(), unrelated.read()) == (50, 0)


def test_a_child_shares_the_timer(ep: Epoll) -> None:
    """Like every fd: what the child reads or sets is read or set for the parent."""
    with Timer(0) as timer:
        ep.register(timer, Event.IN, "timer")
        until(lambda: bool(ep.poll(0)))

        def child() -> None:
            assert ep.poll(0) == [("timer", Event.IN)]
            assert timer.read() == 1
            timer.set(100, 50)
            timer.close()

        assert in_child(child) == ""
        assert (ep.poll(0), timer.read(), timer.interval()) == ([], 0, 50)


def test_is_close_on_exec_and_does_not_block() -> None:
    with Timer(100) as timer:
        assert os.get_inheritable(timer.fileno()) is False
        assert os.get_blocking(timer.fileno()) is False


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps freed memory")
def test_a_busy_loop_of_reads_needs_no_memory() -> None:
    with Timer(interval=1e-9) as timer:
        for _ in range(2_000):
            timer.read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(20_000):
            timer.read()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
