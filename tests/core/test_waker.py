"""A wake is never lost, wakes are one until they are seen, and a closed waker touches no fd."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe
from support.processes import fork
from support.threads import keep_waking, until, waiters

import pyepoll
from pyepoll import Event, Waker

Epoll = pyepoll.Epoll[Any]
Show = Callable[[str], None]

modes = pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET], ids=["level", "edge"])


@modes
def test_several_wakes_are_one_event(ep: Epoll, mask: Event) -> None:
    with Waker() as waker:
        ep.register(waker, mask, waker)
        assert ep.poll(0) == []
        for _ in range(100):
            waker.wake()
        assert ep.poll(0) == [(waker, Event.IN)]
        assert waker.clear() is True
        assert waker.clear() is False
        assert ep.poll(0) == []


def test_level_stays_until_it_is_cleared(ep: Epoll) -> None:
    with Waker() as waker:
        ep.register(waker, Event.IN, "waker")
        waker.wake()
        assert [ep.poll(0) for _ in range(3)] == [[("waker", Event.IN)]] * 3
        waker.clear()
        assert ep.poll(0) == []


def test_an_edge_triggered_waker_needs_no_clear(ep: Epoll) -> None:
    with Waker() as waker:
        ep.register(waker, Event.IN | Event.ET, "waker")
        for _ in range(100):
            waker.wake()
            assert ep.poll(0) == [("waker", Event.IN)]
            assert ep.poll(0) == []


@modes
def test_wake_ends_a_wait(ep: Epoll, pool: ThreadPoolExecutor, mask: Event) -> None:
    with Waker() as waker:
        ep.register(waker, mask, "waker")
        for _ in range(20):
            wait = pool.submit(ep.poll, 30)
            until(lambda: waiters() == 1)
            waker.wake()
            assert wait.result(10) == [("waker", Event.IN)]
            waker.clear()


def await_all(ep: Epoll, waker: Waker, mask: Event, counts: list[int], total: int) -> None:
    """Wait until the counts that others wake for come to ``total``."""
    seen = 0
    while seen < total:
        assert ep.poll(10) != [], f"slept through a wake after {seen} of {total}"
        if not mask & Event.ET:
            waker.clear()
        seen = sum(counts)


@modes
@pytest.mark.lasts(60)
def test_no_wake_of_eight_threads_is_lost(
    ep: Epoll, pool: ThreadPoolExecutor, mask: Event, effort: Effort, show: Show
) -> None:
    """Each thread counts up, then wakes: a waiter sees the last count in the end."""
    each, counts = effort(2_500, 125_000), [0] * 8
    before = ep.stats().waits
    with Waker() as waker:
        ep.register(waker, mask)

        def work(number: int) -> None:
            for turn in range(each):
                counts[number] += 1
                waker.wake()
                if turn % 16 == 0:
                    time.sleep(0)  # or the threads would run one after another

        working = [pool.submit(work, number) for number in range(8)]
        await_all(ep, waker, mask, counts, 8 * each)
        for done in working:
            done.result()
    show(f"{8 * each} wakes, none lost, seen as {ep.stats().waits - before} events")


@modes
def test_two_threads_that_wake_each_other_lose_no_wake(
    ep: Epoll, pool: ThreadPoolExecutor, mask: Event
) -> None:
    """Two threads wake each other in turn; one lost wake would stop both."""
    rounds = 300
    with Waker() as there, Waker() as back, pyepoll.Epoll[Any]() as other:
        ep.register(there, mask)
        other.register(back, mask)

        def echo() -> None:
            for _ in range(rounds):
                assert ep.poll(10)
                there.clear()
                back.wake()

        echoing = pool.submit(echo)
        for _ in range(rounds):
            there.wake()
            assert other.poll(10)
            back.clear()
        echoing.result()


FULL = 2**64 - 2
"""The value that fills an eventfd's counter, so that a write would block."""


def test_wake_with_a_full_counter_keeps_the_waker_readable(ep: Epoll) -> None:
    """The write would block, and says so; the waker is as readable as it can be."""
    with Waker() as waker:
        ep.register(waker, Event.IN, "waker")
        os.eventfd_write(waker.fileno(), FULL)
        for _ in range(10):
            waker.wake()
        assert ep.poll(0) == [("waker", Event.IN)]
        assert waker.clear() is True
        assert ep.poll(0) == []
        waker.wake()
        assert ep.poll(0) == [("waker", Event.IN)]


def test_wake_with_a_full_counter_makes_an_edge(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    """A write that would block makes none."""
    with Waker() as waker:
        ep.register(waker, Event.IN | Event.ET, "waker")
        os.eventfd_write(waker.fileno(), FULL)
        assert ep.poll(0) == [("waker", Event.IN)]
        wait = pool.submit(ep.poll, 10)
        until(lambda: waiters() == 1)
        waker.wake()
        assert wait.result() == [("waker", Event.IN)]


@modes
def test_wake_with_a_full_counter_never_blocks(ep: Epoll, pool: ThreadPoolExecutor, mask: Event) -> None:
    """None blocks, and none is lost, while the counter is filled up again and again."""
    counts, each = [0] * 8, 500
    with Waker() as waker:
        ep.register(waker, mask)

        def work(number: int) -> None:
            for _ in range(each):
                # By one thread at a time: the counter is full, or has the wakes of the others.
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(waker.fileno(), FULL)
                counts[number] += 1
                waker.wake()

        working = [pool.submit(work, number) for number in range(8)]
        await_all(ep, waker, mask, counts, 8 * each)
        for done in working:
            done.result()


@pytest.mark.parametrize("unrelated", ["eventfd", "pipe"])
def test_a_closed_waker_touches_no_fd(unrelated: str, pipe: Pipe) -> None:
    """Its fd refers to an unrelated file."""
    counter = os.eventfd(0, os.EFD_NONBLOCK)
    waker = Waker()
    number = waker.fileno()
    waker.close()
    assert waker.closed is True
    os.dup2(pipe.write if unrelated == "pipe" else counter, number)
    for _ in range(3):
        waker.wake()
        waker.close()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(counter)
    with pytest.raises(BlockingIOError):
        os.read(pipe.read, 1)
    for call in (waker.fileno, waker.clear, waker.__enter__):
        with pytest.raises(ValueError, match="closed"):
            call()
    del waker
    os.fstat(number)
    for fd in (counter, number):
        os.close(fd)


@pytest.mark.lasts(240)
def test_close_during_wake_touches_no_unrelated_fd(
    pool: ThreadPoolExecutor, fast_switching: None, effort: Effort, show: Show
) -> None:
    """Eight threads wake while it is closed, and an eventfd reuses the fd at once: its count stays 0."""
    rounds = effort(20, 2_000)
    for _ in range(rounds):
        waker = Waker()
        number, go, done = waker.fileno(), threading.Barrier(9), threading.Event()

        def work(waker: Waker = waker, go: threading.Barrier = go, done: threading.Event = done) -> None:
            go.wait(10)
            while not done.is_set():
                waker.wake()

        working = [pool.submit(work) for _ in range(8)]
        go.wait(10)
        waker.close()
        unrelated = os.eventfd(0, os.EFD_NONBLOCK)
        done.set()
        for each in working:
            each.result(10)
        assert unrelated == number
        with pytest.raises(BlockingIOError):
            os.eventfd_read(unrelated)
        os.close(unrelated)
    show(f"strays 0 of {rounds}")


@modes
def test_wake_works_in_a_signal_handler(ep: Epoll, mask: Event) -> None:
    with Waker() as waker:
        ep.register(waker, mask, "waker")
        before = signal.signal(signal.SIGALRM, lambda *_: waker.wake())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert ep.poll(10) == [("waker", Event.IN)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_wake_works_in_a_handler_that_interrupts_wake_and_clear(ep: Epoll) -> None:
    count = 0

    def handler(*_: object) -> None:
        nonlocal count
        count += 1
        waker.wake()

    with Waker() as waker:
        ep.register(waker, Event.IN)
        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            seen, end = 0, time.monotonic() + 0.3
            while time.monotonic() < end:
                assert ep.poll(10) != []
                waker.clear()
                seen += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert 0 < seen <= count


@modes
def test_wake_in_a_child_wakes_the_parent(ep: Epoll, mask: Event) -> None:
    """A fork shares the waker: the child wakes the parent, and the child's close is the child's own."""
    with Waker() as waker:
        ep.register(waker, mask, "waker")
        for _ in range(3):
            child = fork()
            if child == 0:
                waker.wake()
                waker.close()
                waker.wake()
                os._exit(0)
            assert ep.poll(10) == [("waker", Event.IN)]
            waker.clear()
            assert os.waitpid(child, 0)[1] == 0
            assert ep.poll(0) == []
        waker.wake()
        assert ep.poll(0) == [("waker", Event.IN)]


def test_wake_works_in_children_made_while_others_wake(
    ep: Epoll, pool: ThreadPoolExecutor, fast_switching: None, effort: Effort
) -> None:
    """No lock of a thread that the child does not have is in the way there."""
    done = threading.Event()
    with Waker() as waker, Waker() as heard:
        ep.register(heard, Event.IN, "heard")
        working = [pool.submit(keep_waking, waker, done) for _ in range(4)]
        try:
            for _ in range(effort(10, 1000)):
                child = fork(8)
                if child == 0:
                    waker.wake()
                    waker.clear()
                    heard.wake()
                    os._exit(0)
                assert ep.poll(10) == [("heard", Event.IN)]
                heard.clear()
                assert os.waitpid(child, 0)[1] == 0
        finally:
            done.set()
        for each in working:
            each.result(10)


def test_wake_works_in_a_finalizer(ep: Epoll) -> None:
    class Data:
        def __del__(self) -> None:
            waker.wake()

    with Waker() as waker:
        ep.register(waker, Event.IN, Data())
        ep.modify(waker, Event.IN, "waker")
        assert ep.poll(0) == [("waker", Event.IN)]


def test_wake_raises_if_the_fd_was_closed_by_others() -> None:
    """An exception, because the fd was closed elsewhere and a wake would be lost."""
    waker = Waker()
    os.close(waker.fileno())
    calls: list[Callable[[], object]] = [waker.wake, waker.clear, waker.close]
    for call in calls:
        with pytest.raises(OSError, match="eventfd"):
            call()
    waker.close()
    assert waker.closed


def test_several_wakers_in_one_epoll_are_told_apart(ep: Epoll) -> None:
    wakers = [Waker() for _ in range(5)]
    for waker in wakers:
        ep.register(waker, Event.IN | Event.ET, waker)
    for i in (3, 1):
        wakers[i].wake()
    assert {data for data, _ in ep.poll(0)} == {wakers[1], wakers[3]}
    for waker in wakers:
        ep.unregister(waker)
        waker.close()


def test_an_unreferenced_waker_is_closed() -> None:
    number = Waker().fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
