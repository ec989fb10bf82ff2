"""Every method may be called from any thread at any time."""

import contextlib
import errno
import itertools
import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Pipe, agree, fdinfo, until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]


def together(*works: Callable[[], object], seconds: float = 30) -> list[str]:
    """Run each in a thread of its own, all at once; return the tracebacks, and who was not back in time."""
    barrier, complaints = threading.Barrier(len(works)), []

    def run(work: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            work()
        except BaseException:
            complaints.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
        if thread.is_alive():
            complaints.append(f"{thread} is not back")
    return complaints


def test_two_loops_on_one_epoll(ep: Epoll, make_pipe: Callable[[], Pipe]) -> None:
    """One-shot registrations: each event goes to one of the two, and none is lost."""
    pipes, rounds = [make_pipe() for _ in range(8)], 100
    handled = {pipe.read: 0 for pipe in pipes}
    active: set[int] = set()
    threads_seen: set[int] = set()
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
                threads_seen.add(threading.get_ident())
                assert os.read(pipe.read, 10) == b"x"
                handled[pipe.read] += 1
                if handled[pipe.read] < rounds:
                    os.write(pipe.write, b"x")
                active.remove(pipe.read)
                ep.rearm(pipe.read)
                if all(count == rounds for count in handled.values()):
                    stop.wake()

        assert together(loop, loop) == []
    assert set(handled.values()) == {rounds}


def test_register_while_another_waits(ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
    for mask in (Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT):
        fd = eventfd(1)
        wait = pool.submit(ep.poll, 30)
        until(lambda: waiters() == 1)
        ep.register(fd, mask, "late")
        assert wait.result(10) == [("late", Event.IN)]
        ep.unregister(fd)


def test_modify_and_unregister_while_another_waits(ep: Epoll, eventfd: Eventfd, pool: Any) -> None:
    fd, other = eventfd(1), eventfd(1)
    ep.register(fd, 0, "quiet")
    ep.register(other, 0, "gone")
    wait = pool.submit(ep.poll, 30)
    until(lambda: waiters() == 1)
    ep.unregister(other)
    ep.modify(fd, Event.IN, "loud")
    assert wait.result(10) == [("loud", Event.IN)]


def test_many_registered_while_another_waits(ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
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
    assert ep.stats()["stale"] == 0


def test_one_iterator_in_two_threads_that_wait(ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
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


def test_one_iterator_in_two_threads_of_which_one_makes_an_event(
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
def test_one_iterator_in_eight_threads(ep: Epoll, eventfd: Eventfd, endless: bool) -> None:
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


def test_everything_at_once(make_pipe: Callable[[], Pipe]) -> None:
    """Documented errors only, no crash, nobody asleep, no fd left."""
    pipes = [make_pipe() for _ in range(6)]
    for pipe in pipes[::2]:
        os.write(pipe.write, b"x")
    fds = [fd for pipe in pipes for fd in (pipe.read, pipe.write)]
    masks = [Event.IN, Event.OUT | Event.ET, Event.IN | Event.ONESHOT, Event.OUT | Event.EXCLUSIVE, Event(0)]
    holder = [pyepoll.Epoll[Any]()]
    waker = pyepoll.Waker()
    end = time.monotonic() + 0.8

    def work(seed: int) -> Callable[[], None]:
        dice = random.Random(seed)

        def act() -> None:
            ep = holder[0]
            what, fd, mask = dice.randrange(12), dice.choice(fds), dice.choice(masks)
            if what < 3:
                ep.register(fd, mask, object())
            elif what < 5:
                ep.modify(fd, mask, [ep])
            elif what == 5:
                ep.unregister(fd)
            elif what == 6:
                ep.rearm(fd)
            elif what == 7:
                ep.poll(dice.choice([0, 0.001]), dice.choice([-1, 1, 5]))
            elif what == 8:
                for _ in itertools.islice(ep.wait(0.001), dice.randrange(4)):
                    pass
            elif what == 9:
                ep.register(waker, Event.IN)
                for _ in itertools.islice(ep, 3):
                    waker.wake()
                ep.unregister(waker)
            elif what == 10:
                len(ep), fd in ep, ep.stats(), ep.closed, repr(ep)
                # A live mapping: another thread may unregister between its key and its value.
                with contextlib.suppress(KeyError):
                    dict(ep.registrations)
            elif not dice.randrange(20):
                holder[0] = pyepoll.Epoll[Any]()
                ep.close()

        def run() -> None:
            while time.monotonic() < end:
                try:
                    act()
                except (FileExistsError, FileNotFoundError):
                    pass
                except OSError as error:
                    # What is exclusive cannot be modified.
                    assert error.errno == errno.EINVAL, error
                except ValueError as error:
                    assert str(error) == "I/O operation on closed epoll object", error

        return run

    def wake() -> None:
        """Nobody is to sleep for ever where nothing is ready."""
        while time.monotonic() < end + 0.1:
            waker.wake()
            with contextlib.suppress(OSError, ValueError):
                holder[0].register(waker, Event.IN)
            time.sleep(0.001)
        holder[0].close()

    complaints = together(*(work(seed) for seed in range(8)), wake)
    holder[0].close()
    waker.close()
    assert complaints == []


def test_object_and_kernel_agree_after_a_storm(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(i % 2) for i in range(8)]
    end = time.monotonic() + 0.5

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
                    # The data that goes with the mask; what another thread changed meanwhile may show both.
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
