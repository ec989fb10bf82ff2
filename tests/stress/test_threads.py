"""Every method may be called from any thread at any time."""

import contextlib
import errno
import functools
import gc
import itertools
import os
import random
import re
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe
from support.kernel import IMPLIED, agree, fdinfo, fdinfo_lines
from support.threads import together, until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

THREAD_SANITIZER = "--with-thread-sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
"""It reports a race when an fd that the epoll still has, or is about to have, is opened or closed."""


@pytest.mark.lasts(60)
@pytest.mark.parametrize("threads", [2, 8])
def test_loops_on_one_epoll_share_the_events(
    ep: Epoll, make_pipe: Callable[[], Pipe], fast_switching: None, threads: int, effort: Effort
) -> None:
    """One-shot registrations: each event goes to one of the threads, and none is lost."""
    pipes, rounds = [make_pipe() for _ in range(8)], effort(100, 5_000)
    handled = {pipe.read: 0 for pipe in pipes}
    active: set[int] = set()
    with pyepoll.Waker() as stop:
        ep.register(stop, Event.IN, None)
        for pipe in pipes:
            ep.register(pipe.read, Event.IN | Event.ONESHOT, pipe)
            os.write(pipe.write, b"x")

        def loop() -> None:
            for pipe, _ in ep:
                if pipe is None:
                    return
                assert pipe.read not in active, "two threads have the same one-shot"
                active.add(pipe.read)
                assert os.read(pipe.read, 10) == b"x"
                handled[pipe.read] += 1
                if handled[pipe.read] < rounds:
                    os.write(pipe.write, b"x")
                active.remove(pipe.read)
                ep.rearm(pipe.read)
                if all(count == rounds for count in handled.values()):
                    stop.wake()

        assert together(*[loop] * threads, seconds=100) == []
    assert set(handled.values()) == {rounds}


def test_register_while_another_waits_is_reported(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    for mask in (Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT):
        fd = eventfd(1)
        wait = pool.submit(ep.poll, 30)
        until(lambda: waiters() == 1)
        ep.register(fd, mask, "late")
        assert wait.result(10) == [("late", Event.IN)]
        ep.unregister(fd)


def test_modify_and_unregister_while_another_waits_take_effect(
    ep: Epoll, eventfd: Eventfd, pool: Any
) -> None:
    fd, other = eventfd(1), eventfd(1)
    ep.register(fd, 0, "quiet")
    ep.register(other, 0, "gone")
    wait = pool.submit(ep.poll, 30)
    until(lambda: waiters() == 1)
    ep.unregister(other)
    ep.modify(fd, Event.IN, "loud")
    assert wait.result(10) == [("loud", Event.IN)]


def test_many_fds_that_get_ready_while_others_wait_are_reported(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    """More than the wait had room for when it began: the rest comes with the next."""
    fds = [eventfd(1) for _ in range(200)]
    with pyepoll.Epoll[Any]() as inner:
        for fd in fds:
            inner.register(fd, Event.IN | Event.ET)
        ep.register(inner, 0, inner)
        waits = [pool.submit(ep.poll, 30) for _ in range(2)]
        until(lambda: waiters() == 2)
        ep.modify(inner, Event.IN)
        for wait in waits:
            assert wait.result(10) == [(inner, Event.IN)]
        seen: set[int] = set()
        while events := inner.poll(0):
            seen.update(data for data, _ in events)
        assert seen == set(fds)


def test_an_edge_that_fires_while_it_is_registered_is_not_stale(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    """The kernel reports it to the other thread before register() returns."""
    done = threading.Event()

    def wait() -> set[int]:
        seen: set[int] = set()
        while not done.is_set():
            seen.update(data for data, _ in ep.poll(0.01))
        return seen

    waits = [pool.submit(wait) for _ in range(2)]
    fds = [os.eventfd(1) for _ in range(300)]
    try:
        for fd in fds:
            ep.register(fd, Event.IN | Event.ONESHOT)
        seen: set[int] = set()
    finally:
        done.set()
    for each in waits:
        seen |= each.result(20)
    seen |= {data for data, _ in ep.poll(0)}
    for fd in fds:
        os.close(fd)
    assert seen == set(fds)
    assert ep.stats().stale_events == 0


def test_an_iterator_refuses_a_second_waiting_thread(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    fd = eventfd()
    ep.register(fd, Event.IN)
    events = iter(ep)
    wait = pool.submit(next, events)
    until(lambda: waiters() == 1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="another thread"):
            next(events)
    os.eventfd_write(fd, 1)
    assert wait.result(10) == (fd, Event.IN)
    assert next(events) == (fd, Event.IN), "it is as good as new"


def test_an_iterator_that_waits_refuses_a_thread_in_a_step(
    ep: Epoll, eventfd: Eventfd, make_events: Any, pool: ThreadPoolExecutor
) -> None:
    """There is one array: while the other waits, the kernel may write to it."""
    fd, later = eventfd(1), eventfd()
    ep.register(fd, Event.IN)
    ep.register(later, Event.IN)
    events = iter(ep)
    waits: list[Any] = []

    def make(mask: int) -> Event:
        if not waits:
            ep.unregister(fd)
            waits.append(pool.submit(next, events))
            until(lambda: waiters() == 1)
        return Event(mask)

    make_events(make)
    with pytest.raises(RuntimeError, match="another thread"):
        pool.submit(next, events).result(10)
    os.eventfd_write(later, 1)
    assert waits[0].result(10) == (later, Event.IN)


@pytest.mark.parametrize("others", [1, 4])
def test_a_registration_is_not_starved_by_others(
    ep: Epoll, eventfd: Eventfd, others: int, pool: ThreadPoolExecutor
) -> None:
    done = threading.Event()

    def churn() -> None:
        fd = eventfd()
        while not done.is_set():
            ep.register(fd, Event.IN)
            ep.unregister(fd)

    def change() -> None:
        fd = eventfd()
        for _ in range(50):
            ep.register(fd, Event.IN)
            ep.unregister(fd)

    churns = [pool.submit(churn) for _ in range(others)]
    try:
        pool.submit(change).result(20)
    finally:
        done.set()
    for each in churns:
        each.result()


@pytest.mark.parametrize("endless", [True, False], ids=["endless", "wait"])
def test_one_iterator_in_eight_threads_yields_every_event(ep: Epoll, eventfd: Eventfd, endless: bool) -> None:
    fds = [eventfd(1) for _ in range(50)]
    for fd in fds:
        ep.register(fd, Event.IN)
    events = iter(ep) if endless else ep.wait(0)
    seen: list[int] = []

    def work() -> None:
        for _ in range(500):
            # In use by another thread, or used up.
            with contextlib.suppress(RuntimeError, StopIteration):
                seen.append(next(events)[0])

    assert together(*[work] * 8) == []
    assert set(seen) == set(fds)
    if not endless:
        assert sorted(seen) == fds, "each event once"


@dataclass(frozen=True, eq=False)
class Data:
    """The data of a registration: enough to see that it is the right one."""

    fd: int
    mask: int


def is_agreed(ep: Epoll) -> bool:
    """As ``agree``, for one-shots too: of a fired one, the kernel shows only the bits that are not events.

    After a rebuild it adds ERR and HUP as always, but such an event is not handed out.
    """
    kernel, believed = fdinfo_lines(ep), dict(ep.registrations)
    ways = Event.ET | Event.ONESHOT | Event.EXCLUSIVE
    return sorted(fd for fd, _, _ in kernel) == sorted(believed) and all(
        events == believed[fd][0] | IMPLIED
        or (events & ~IMPLIED == believed[fd][0] & ways and believed[fd][0] & Event.ONESHOT)
        for fd, events, _ in kernel
    )


class Storm:
    """The objects that the threads of a storm share: an Epoll, a Waker and iterators, replaced at times."""

    MASKS = (Event.IN, Event.OUT | Event.ET, Event.IN | Event.ONESHOT, Event.OUT | Event.EXCLUSIVE, Event(0))

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds
        self.waker = pyepoll.Waker()
        self.handles = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.renew()

    def renew(self) -> None:
        self.ep: Epoll = pyepoll.Epoll()
        self.endless = iter(self.ep)
        self.batch = self.ep.wait(0)

    def worker(self, seed: int, end: float) -> Callable[[], None]:
        dice = random.Random(seed)
        actions = [
            *[self.register, self.modify, self.poll, self.wait] * 3,
            *[self.unregister, self.rearm, self.iterate, self.share_an_iterator, self.read] * 2,
            self.share_a_number,
            self.replace_the_epoll,
        ]
        if not THREAD_SANITIZER:
            actions += [self.leave_stale, self.leave_stale, self.replace_the_waker]

        def run() -> None:
            calls: Counter[str] = Counter()
            while time.monotonic() < end:
                action = dice.choice(actions)
                calls[action.__name__] += 1
                try:
                    action(dice)
                except (FileExistsError, FileNotFoundError):
                    pass
                except OSError as error:
                    # An exclusive registration cannot be modified; an fd may be closed, or be an epoll that
                    # watches this one for a wait of another thread, or a file of /proc that a rebuild reads.
                    assert error.errno in (errno.EINVAL, errno.EBADF, errno.ELOOP, errno.EPERM), error
                except ValueError as error:
                    assert re.fullmatch(r"I/O operation on closed (epoll object|waker)", str(error)), error
                except RuntimeError as error:
                    assert "waiting in another thread" in str(error), error
            with self.handles:
                self.calls += calls

        return run

    def register(self, dice: random.Random) -> None:
        fd, mask = dice.choice(self.fds), dice.choice(self.MASKS)
        self.ep.register(fd, mask, Data(fd, mask))

    def modify(self, dice: random.Random) -> None:
        fd, mask = dice.choice(self.fds), dice.choice(self.MASKS)
        self.ep.modify(fd, mask, Data(fd, mask))

    def unregister(self, dice: random.Random) -> None:
        self.ep.unregister(dice.choice(self.fds))

    def rearm(self, dice: random.Random) -> None:
        self.ep.rearm(dice.choice(self.fds))

    def take(self, events: Iterable[tuple[Any, Event]]) -> None:
        for data, mask in events:
            assert isinstance(data, Data)
            assert mask

    def poll(self, dice: random.Random) -> None:
        self.take(self.ep.poll(dice.choice([0, 0.001]), dice.choice([-1, 1, 5])))

    def wait(self, dice: random.Random) -> None:
        self.take(itertools.islice(self.ep.wait(0.001), dice.randrange(4)))

    def iterate(self, dice: random.Random) -> None:
        ep, waker = self.ep, self.waker
        ep.register(waker, Event.IN, Data(-1, Event.IN))
        waker.wake()
        self.take(itertools.islice(ep, 3))
        ep.unregister(waker)

    def share_an_iterator(self, dice: random.Random) -> None:
        if not dice.randrange(10):
            self.batch = self.ep.wait(0)
        events = self.batch if dice.randrange(2) else self.endless
        self.take(itertools.islice(events, 3))

    def read(self, dice: random.Random) -> None:
        ep = self.ep
        before = ep.stats()
        fd = dice.choice(self.fds)
        len(ep), fd in ep, bool(ep), ep.closed, repr(ep), repr(ep.registrations)
        # A live mapping: another thread may unregister between its key and its value.
        with contextlib.suppress(KeyError):
            for number, (mask, data) in ep.registrations.items():
                assert isinstance(data, Data)
                assert data.fd in (number, -1)
                assert data.mask == mask
        after = ep.stats()
        assert all(now >= count for now, count in zip(after, before, strict=True))

    def leave_stale(self, dice: random.Random) -> None:
        """Leave a stale registration, which is ready, and let another thread have its fd."""
        ep, fd = self.ep, os.eventfd(1, os.EFD_NONBLOCK)
        kept = os.dup(fd)
        try:
            ep.register(fd, Event.IN, Data(-1, Event.IN))
        finally:
            # Not closed yet, or another thread would get the fd before it is unregistered.
            os.dup2(self.fds[0], fd)
            with contextlib.suppress(OSError, ValueError):
                ep.unregister(fd)
            os.close(fd)
            with contextlib.suppress(OSError, ValueError):
                ep.poll(0.001)
            os.close(kept)

    def share_a_number(self, dice: random.Random) -> None:
        with self.handles:  # the fd has to be that of this very epoll
            other = pyepoll.Epoll[Any].fromfd(self.ep.fileno())
        self.take(other.poll(0))
        fd = dice.choice(self.fds)
        other.register(fd, Event.IN, Data(fd, Event.IN))
        if not dice.randrange(200):
            with self.handles:
                ep = self.ep  # not the epoll of `other`, if another thread has replaced that
                self.renew()
                other.close()
                ep.close()

    def replace_the_waker(self, dice: random.Random) -> None:
        if not dice.randrange(20):
            waker, self.waker = self.waker, pyepoll.Waker()
            with contextlib.suppress(OSError, ValueError):
                self.ep.unregister(waker)
            waker.close()
            waker.wake()

    def replace_the_epoll(self, dice: random.Random) -> None:
        if not dice.randrange(200):
            with self.handles:
                ep = self.ep
                self.calls["rebuilds"] += ep.stats().rebuilds
                self.renew()
                ep.close()


def run_storm(fds: list[int], seconds: int) -> dict[str, int]:
    """Run a storm for so long, check the result, and return how often each call was made."""
    storm = Storm(fds)
    end = time.monotonic() + seconds
    working = [storm.worker(seed, end) for seed in range(8)]
    ended: list[None] = []

    def work(run: Callable[[], None]) -> None:
        try:
            run()
        finally:
            ended.append(None)

    def wake() -> None:
        """No thread may sleep indefinitely where nothing is ready."""
        while len(ended) < len(working):
            with contextlib.suppress(OSError, ValueError):
                storm.ep.register(storm.waker, Event.IN, Data(-1, Event.IN))
            storm.waker.wake()
            time.sleep(0.001)

    assert together(*[functools.partial(work, run) for run in working], wake, seconds=seconds + 30) == []
    # Closing a file that another thread has just registered leaves it listed until it is touched.
    for fd in set(storm.ep.registrations) - set(fds):
        with contextlib.suppress(OSError):
            storm.ep.unregister(fd)
    # Stale registrations are removed by waits, with a rest of 10 times its duration after each repair.
    until(lambda: storm.ep.poll(0) is not None and is_agreed(storm.ep))
    storm.ep.close()
    storm.waker.close()
    return dict(storm.calls)


@pytest.mark.lasts(90)
def test_every_call_at_once_raises_only_documented_errors(
    make_pipe: Callable[[], Pipe], fast_switching: None, effort: Effort, show: Callable[[str], None]
) -> None:
    """Documented errors only, no crash, no sleeping thread, nothing left; the object and the kernel agree."""
    pipes = [make_pipe() for _ in range(6)]
    for pipe in pipes[::2]:
        os.write(pipe.write, b"x")
    seconds = effort(1, 60)

    def alive() -> list[object]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, Data | pyepoll.Epoll)]

    # Without a GIL a thread that has ended may keep objects that other tests left to it.
    before = alive()
    calls = run_storm([fd for pipe in pipes for fd in (pipe.read, pipe.write)], seconds)
    show(f"8 threads for {seconds} s, {calls}")
    assert not [thing for thing in alive() if thing not in before]


@pytest.mark.lasts(30)
def test_object_and_kernel_agree_after_a_storm(
    ep: Epoll, eventfd: Eventfd, fast_switching: None, effort: Effort
) -> None:
    fds = [eventfd(i % 2) for i in range(8)]
    end = time.monotonic() + effort(1, 20) / 2

    def work(seed: int) -> Callable[[], None]:
        dice = random.Random(seed)

        def run() -> None:
            while time.monotonic() < end:
                fd, mask = dice.choice(fds), dice.choice([Event.IN, Event.IN | Event.ET, Event.OUT, Event(0)])
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    what = dice.randrange(3)
                    if what == 0:
                        ep.register(fd, mask, mask)
                    elif what == 1:
                        ep.modify(fd, mask, mask)
                    else:
                        ep.unregister(fd)
                for data, events in ep.wait(0):
                    # The data that belongs to the mask; a change by another thread may show both.
                    assert isinstance(data, Event)
                    assert events & ~(Event.IN | Event.OUT) == 0

        return run

    assert together(*(work(seed) for seed in range(4))) == []
    assert agree(ep)
    assert {fd: data for fd, (_, data) in ep.registrations.items()} == {
        fd: events for fd, (events, _) in ep.registrations.items()
    }
    for fd in list(ep.registrations):
        ep.unregister(fd)
    assert fdinfo(ep) == {}
