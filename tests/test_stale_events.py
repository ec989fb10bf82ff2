"""No event reaches a registration that did not ask for it, and leaving a loop loses none."""

import gc
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Pipe, fdinfo, until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]
Iterate = Callable[[Any], Iterator[tuple[Any, int]]]

WAYS: list[Iterate] = [lambda ep: iter(ep.wait(0)), iter]
both = pytest.mark.parametrize("iterate", WAYS, ids=["wait", "endless"])
no_stale_event = pytest.mark.parametrize(
    ("make", "iterate"),
    [
        pytest.param(pyepoll.Epoll, WAYS[0], id="wait"),
        pytest.param(pyepoll.Epoll, WAYS[1], id="endless"),
        pytest.param(
            select.epoll,
            lambda ep: iter(ep.poll(0)),
            id="stock",
            marks=pytest.mark.xfail(raises=AssertionError, reason="hands out what was true when it returned"),
        ),
    ],
)


def rest(events: Iterator[tuple[Any, int]], stop: int) -> list[Any]:
    """The data of what comes until `stop`, which is always ready and level-triggered."""
    seen = []
    for data, _ in events:
        seen.append(data)
        if data == stop:
            break
    return seen


@pytest.fixture
def stop(eventfd: Eventfd) -> int:
    """Always ready; registered last, it comes last of the first batch."""
    return eventfd(1)


@no_stale_event
def test_unregistered_within_a_batch(make: Any, iterate: Iterate, eventfd: Eventfd, stop: int) -> None:
    a, b = eventfd(1), eventfd(1)
    with make() as ep:
        for fd in (a, b, stop):
            ep.register(fd, select.EPOLLIN)
        events = iterate(ep)
        first, _ = next(events)
        assert first == a
        ep.unregister(b)
        assert b not in rest(events, stop)


@no_stale_event
def test_the_number_is_a_newcomers_within_a_batch(make: Any, iterate: Iterate, stop: int) -> None:
    """The handler of A closes B, and a newcomer that is not ready gets B's number."""
    a, b = os.eventfd(1), os.eventfd(1)
    with make() as ep:
        for fd in (a, b, stop):
            ep.register(fd, select.EPOLLIN)
        events = iterate(ep)
        first, _ = next(events)
        assert first == a
        ep.unregister(b)
        idle = os.eventfd(0)
        os.dup2(idle, b)
        ep.register(b, select.EPOLLIN)
        try:
            assert b not in rest(events, stop)
        finally:
            for fd in (a, b, idle):
                os.close(fd)


@no_stale_event
def test_the_number_is_reused_without_unregister(make: Any, iterate: Iterate, stop: int) -> None:
    a, b = os.eventfd(1), os.eventfd(1)
    with make() as ep:
        for fd in (a, b, stop):
            ep.register(fd, select.EPOLLIN)
        events = iterate(ep)
        next(events)
        os.close(b)
        idle = os.eventfd(0)
        os.dup2(idle, b)
        ep.register(b, select.EPOLLIN)
        try:
            assert b not in rest(events, stop)
        finally:
            for fd in {a, b, idle}:
                os.close(fd)


@both
def test_the_newcomers_data_never_comes_with_the_old_event(
    ep: Epoll, iterate: Iterate, eventfd: Eventfd, stop: int
) -> None:
    a, b = eventfd(1), eventfd(1)
    ep.register(a, Event.IN, "a")
    ep.register(b, Event.IN, "old")
    ep.register(stop, Event.IN, "stop")
    events = iterate(ep)
    next(events)
    ep.unregister(b)
    ep.register(b, 0, "new")
    seen = []
    for data, _ in events:
        seen.append(data)
        if data == "stop":
            break
    assert seen == ["stop"]


@both
def test_modified_within_a_batch_comes_with_the_new_data(
    ep: Epoll, iterate: Iterate, eventfd: Eventfd
) -> None:
    a, b = eventfd(1), eventfd(1)
    ep.register(a, Event.IN, "a")
    ep.register(b, Event.IN, "old")
    events = iterate(ep)
    next(events)
    ep.modify(b, Event.IN, "new")
    assert next(events) == ("new", Event.IN)


@both
def test_unregistered_by_another_thread_between_two_steps(
    ep: Epoll, iterate: Iterate, eventfd: Eventfd, stop: int, pool: ThreadPoolExecutor
) -> None:
    fds = [eventfd(1) for _ in range(4)]
    for fd in (*fds, stop):
        ep.register(fd, Event.IN)
    events = iterate(ep)
    assert next(events)[0] == fds[0]
    for fd in fds[1:]:
        pool.submit(ep.unregister, fd).result()
    assert rest(events, stop) == [stop]


def test_another_threads_next_step(ep: Epoll, eventfd: Eventfd, stop: int, pool: ThreadPoolExecutor) -> None:
    """What this thread unregisters does not come out of a batch that another thread has in hand."""
    fds = [eventfd(1) for _ in range(4)]
    for fd in (*fds, stop):
        ep.register(fd, Event.IN)
    fetched, removed = threading.Event(), threading.Event()

    def walk() -> list[int]:
        events = ep.wait(0)
        seen = [next(events)[0]]
        fetched.set()
        assert removed.wait(10)
        return seen + [data for data, _ in events]

    walking = pool.submit(walk)
    assert fetched.wait(10)
    for fd in fds[1:]:
        ep.unregister(fd)
    removed.set()
    assert walking.result() == [fds[0], stop]


def test_two_threads_iterate_while_a_third_registers_anew(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    """Each event comes with the data of a registration that stood when it was handed out."""
    fds = [os.eventfd(1) for _ in range(8)]
    # By fd: the data of registrations that are gone for good. Written before the check reads it.
    gone: set[tuple[int, int]] = set()
    done = threading.Event()
    for fd in fds:
        ep.register(fd, Event.IN, (fd, 0))

    def walk() -> list[Any]:
        wrong = []
        while not done.is_set():
            events = ep.wait(0.1)
            while True:
                before = frozenset(gone)
                event = next(events, None)
                if event is None:
                    break
                if event[0] in before:
                    wrong.append(event[0])
        return wrong

    walks = [pool.submit(walk) for _ in range(2)]
    try:
        for round in range(1, 150):
            for fd in fds:
                ep.unregister(fd)
                gone.add((fd, round - 1))
                ep.register(fd, Event.IN, (fd, round))
    finally:
        done.set()
    assert [walk.result() for walk in walks] == [[], []]
    for fd in fds:
        os.close(fd)


# Leaving a loop.

edges = pytest.mark.parametrize("mask", [Event.IN | Event.ET, Event.IN | Event.ONESHOT], ids=str)


def by_break(events: Iterator[Any]) -> Any:
    for event in events:
        return event


def by_exception(events: Iterator[Any]) -> Any:
    try:
        for event in events:
            raise RuntimeError(event)
    except RuntimeError as error:
        (event,) = error.args
        error.__traceback__ = None
        return event


leave = pytest.mark.parametrize("leave", [by_break, by_exception])


@edges
@leave
@pytest.mark.parametrize(
    ("make", "iterate"),
    [
        pytest.param(pyepoll.Epoll, WAYS[0], id="wait"),
        pytest.param(pyepoll.Epoll, WAYS[1], id="endless"),
        pytest.param(
            select.epoll,
            lambda ep: iter(ep.poll(0)),
            id="stock",
            marks=pytest.mark.xfail(raises=AssertionError, reason="the list is lost, and its edges with it"),
        ),
    ],
)
def test_leaving_after_one_of_five(
    make: Any, iterate: Iterate, mask: Event, leave: Callable[..., Any], eventfd: Eventfd
) -> None:
    fds = [eventfd(1) for _ in range(5)]
    with make() as ep:
        for fd in fds:
            ep.register(fd, mask)
        data, _ = leave(iterate(ep))
        gc.collect()
        assert data == fds[0]
        assert sorted(data for data, _ in ep.poll(0)) == fds[1:], "the four others come again, the first not"
        assert ep.poll(0) == []


@edges
def test_dropped_before_the_first_step(ep: Epoll, eventfd: Eventfd, mask: Event) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, mask)
    ep.wait(0)
    assert sorted(data for data, _ in ep.wait(0)) == fds
    assert ep.poll(0) == []


@edges
def test_used_up_is_not_armed_again(ep: Epoll, eventfd: Eventfd, mask: Event) -> None:
    ep.register(eventfd(1), mask)
    events = ep.wait(0)
    assert len(list(events)) == 1
    del events
    assert ep.poll(0) == []


@edges
def test_an_iterator_in_hand_keeps_what_it_fetched(ep: Epoll, eventfd: Eventfd, mask: Event) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, mask)
    events = ep.wait(0)
    assert ep.poll(0) == []
    assert [data for data, _ in events] == fds


@edges
def test_a_wait_in_another_thread_gets_what_was_given_back(
    ep: Epoll, eventfd: Eventfd, mask: Event, pool: ThreadPoolExecutor
) -> None:
    fds = [eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, mask)
    events = ep.wait(0)
    assert next(events)[0] == fds[0]
    waiting = pool.submit(ep.poll, 10)
    until(lambda: waiters() == 1)
    del events
    assert waiting.result() == [(fds[1], Event.IN)]


@edges
def test_registered_while_the_wait_was_on(
    ep: Epoll, eventfd: Eventfd, mask: Event, pool: ThreadPoolExecutor
) -> None:
    def drop() -> None:
        ep.wait(10)

    dropping = pool.submit(drop)
    until(lambda: waiters() == 1)
    fd = eventfd(1)
    ep.register(fd, mask)
    dropping.result(10)
    assert ep.poll(10) == [(fd, Event.IN)]
    assert ep.poll(0) == []


@edges
def test_several_registered_while_the_wait_was_on(
    ep: Epoll, eventfd: Eventfd, mask: Event, pool: ThreadPoolExecutor
) -> None:
    """One write makes them all ready: of the batch the first is taken."""
    fds = [eventfd()]
    fds += [os.dup(fds[0]) for _ in range(3)]
    taking = pool.submit(lambda: by_break(iter(ep)))
    until(lambda: waiters() == 1)
    for fd in fds:
        ep.register(fd, mask)
    os.eventfd_write(fds[0], 1)
    seen = [taking.result(10)[0]]
    deadline = time.monotonic() + 10
    while len(seen) < len(fds) and time.monotonic() < deadline:
        seen += [data for data, _ in ep.poll(0.1)]
    assert sorted(seen) == fds
    assert ep.poll(0) == []
    for fd in fds[1:]:
        os.close(fd)


def test_a_refused_modify_does_not_cost_the_edge(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN | Event.ET)
    events = ep.wait(0)
    with pytest.raises(OSError, match="EXCLUSIVE"):
        ep.modify(fd, Event.IN | Event.EXCLUSIVE)
    del events
    assert ep.poll(0) == [(fd, Event.IN)]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "fetch",
    [lambda ep: next(ep.wait(0)), lambda ep: next(iter(ep)), lambda ep: ep.poll(0)],
    ids=["wait", "endless", "poll"],
)
@edges
def test_what_could_not_be_handed_out_is_given_back(
    ep: Epoll, eventfd: Eventfd, make_events: Any, fetch: Any, error: Any, mask: Event
) -> None:
    fd = eventfd(1)
    ep.register(fd, mask)

    def fail(mask: int) -> None:
        raise error

    make_events(fail)
    with pytest.raises(error):
        fetch(ep)
    gc.collect()
    make_events(Event)
    assert ep.poll(0) == [(fd, Event.IN)]
    assert ep.poll(0) == []


@both
def test_an_iterator_goes_on_with_what_it_could_not_hand_out(
    ep: Epoll, eventfd: Eventfd, make_events: Any, iterate: Iterate
) -> None:
    fds = [eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET)

    def fail(mask: int) -> None:
        raise KeyboardInterrupt

    make_events(fail)
    events = iterate(ep)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            next(events)
    make_events(Event)
    assert [next(events)[0] for _ in fds] == fds
    assert ep.poll(0) == []


def test_level_events_are_left_to_the_kernel(ep: Epoll, eventfd: Eventfd) -> None:
    """Nothing is told to the kernel for them: a modify would queue them as new."""
    fds = [eventfd(1) for _ in range(5)]
    for fd in fds:
        ep.register(fd, Event.IN)
    by_break(ep.wait(0))
    assert sorted(data for data, _ in ep.poll(0)) == fds


def test_a_one_shot_modified_meanwhile_is_left_as_it_was_modified(ep: Epoll, eventfd: Eventfd) -> None:
    """Its handler, or another thread, has decided what comes next: to be armed twice would be wrong."""
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    events = ep.wait(0)
    next(events)
    ep.modify(fds[1], Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(fds[1], Event.IN)]
    ep.modify(fds[2], Event.PRI | Event.ONESHOT)
    del events
    assert ep.poll(0) == [], "spent by the poll; modified to ask for something else"


def test_an_edge_rearmed_meanwhile_comes_once(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET)
    events = ep.wait(0)
    next(events)
    ep.rearm(fds[1])
    assert ep.poll(0) == [(fds[1], Event.IN)]
    del events
    assert ep.poll(0) == []


def test_exclusive_edges_are_reported_again(ep: Epoll, eventfd: Eventfd) -> None:
    """The kernel refuses to modify an exclusive registration, so it is made anew."""
    fds = [eventfd(1) for _ in range(3)]
    mask = Event.IN | Event.ET | Event.EXCLUSIVE
    for fd in fds:
        ep.register(fd, mask)
    before = fdinfo(ep)
    by_break(ep.wait(0))
    assert fdinfo(ep) == before
    assert sorted(data for data, _ in ep.poll(0)) == fds[1:]
    assert ep.poll(0) == []


@edges
def test_unregistered_or_replaced_meanwhile_is_not_armed(ep: Epoll, mask: Event, make_pipe: Any) -> None:
    pipes: list[Pipe] = [make_pipe() for _ in range(3)]
    for pipe in pipes:
        os.write(pipe.write, b"x")
        ep.register(pipe.read, mask)
    events = ep.wait(0)
    ep.unregister(pipes[0].read)
    ep.unregister(pipes[1].read)
    ep.register(pipes[1].read, Event.PRI)
    before = fdinfo(ep)
    del before[pipes[2].read]
    del events
    after = fdinfo(ep)
    del after[pipes[2].read]
    assert after == before
    assert ep.poll(0) == [(pipes[2].read, Event.IN)]


def test_dropped_after_close(ep: Epoll, eventfd: Eventfd) -> None:
    for _ in range(3):
        ep.register(eventfd(1), Event.IN | Event.ET)
    events, endless = ep.wait(0), iter(ep)
    ep.close()
    assert list(events) == []
    assert list(endless) == []
    del events, endless


def test_dropped_by_the_collector(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    cycle: list[object] = [ep.wait(0)]
    cycle.append(cycle)
    assert ep.poll(0) == []
    del cycle
    gc.collect()
    assert sorted(data for data, _ in ep.poll(0)) == fds


def test_stale_events_are_counted(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(5)]
    for fd in fds:
        ep.register(fd, Event.IN)
    before = ep.stats()["stale"]
    events = ep.wait(0)
    for fd in fds:
        ep.unregister(fd)
    assert list(events) == []
    assert ep.stats()["stale"] == before + 5
    assert ep.stats()["cures"] == 0, "late is not a ghost"


def test_a_foreign_instances_stale_events(eventfd: Eventfd) -> None:
    """Others register there too; but what was registered here is known."""
    with select.epoll() as stock:
        ep = pyepoll.Epoll[Any].fromfd(stock.fileno())
        fds = [eventfd(1), eventfd(1)]
        for fd in fds:
            ep.register(fd, Event.IN, fd)
        events = ep.wait(0)
        first, _ = next(events)
        fds.remove(first)
        ep.unregister(fds[0])
        assert list(events) == []
