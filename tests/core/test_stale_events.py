"""No event reaches a registration that did not ask for it, and leaving a loop loses none."""

import contextlib
import gc
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe
from support.kernel import fdinfo
from support.threads import until, waiters

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
            marks=pytest.mark.xfail(raises=AssertionError, reason="its list is a snapshot"),
        ),
    ],
)


def rest(events: Iterator[tuple[Any, int]], stop: int) -> list[Any]:
    """The data of the events up to `stop`, which is always ready and level-triggered."""
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
def test_an_fd_unregistered_within_a_batch_gets_no_event(
    make: Any, iterate: Iterate, eventfd: Eventfd, stop: int
) -> None:
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
def test_a_reused_fd_gets_no_event_of_the_old_file(make: Any, iterate: Iterate, stop: int) -> None:
    """The handler of A closes B, and a new file that is not ready gets B's fd."""
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
def test_an_fd_reused_without_unregister_gets_no_old_event(make: Any, iterate: Iterate, stop: int) -> None:
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


@no_stale_event
@pytest.mark.parametrize("unregister", [True, False], ids=["unregistered", "closed only"])
def test_an_accepted_connection_that_reuses_an_fd_gets_no_old_event(
    make: Any, iterate: Iterate, unregister: bool, eventfd: Eventfd, stop: int
) -> None:
    """A server: the handler of A drops the connection B, and accepts another, which has sent nothing yet."""
    with contextlib.ExitStack() as stack, make() as ep:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        peer = stack.enter_context(socket.create_connection(server.getsockname()))
        b, _ = server.accept()
        stack.enter_context(socket.create_connection(server.getsockname()))
        peer.send(b"x")
        assert select.select([b], [], [], 10)[0]
        a, number = eventfd(1), b.fileno()
        for fd in (a, number, stop):
            ep.register(fd, select.EPOLLIN)
        events = iterate(ep)
        first, _ = next(events)
        assert first == a
        if unregister:
            ep.unregister(b)
        b.close()
        new_socket, _ = server.accept()
        stack.enter_context(new_socket)
        assert new_socket.fileno() == number
        ep.register(new_socket, select.EPOLLIN)
        assert number not in rest(events, stop)


@both
def test_new_data_never_comes_with_an_old_event(
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
def test_a_modify_within_a_batch_yields_the_new_data(ep: Epoll, iterate: Iterate, eventfd: Eventfd) -> None:
    a, b = eventfd(1), eventfd(1)
    ep.register(a, Event.IN, "a")
    ep.register(b, Event.IN, "old")
    events = iterate(ep)
    next(events)
    ep.modify(b, Event.IN, "new")
    assert next(events) == ("new", Event.IN)


@both
def test_unregister_by_another_thread_between_two_steps_drops_the_event(
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


@no_stale_event
def test_unregister_drops_events_of_another_threads_batch(
    make: Any, iterate: Iterate, eventfd: Eventfd, stop: int, pool: ThreadPoolExecutor
) -> None:
    """A registration that this thread removes has no event in a batch that another thread iterates over."""
    fds = [eventfd(1) for _ in range(4)]
    fetched, removed = threading.Event(), threading.Event()

    def walk(ep: Any) -> list[int]:
        events = iterate(ep)
        first, _ = next(events)
        fetched.set()
        assert removed.wait(10)
        return [first, *rest(events, stop)]

    with make() as ep:
        for fd in (*fds, stop):
            ep.register(fd, select.EPOLLIN)
        walking = pool.submit(walk, ep)
        assert fetched.wait(10)
        for fd in fds[1:]:
            ep.unregister(fd)
        removed.set()
        assert walking.result() == [fds[0], stop]


masks = pytest.mark.parametrize(
    "mask", [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT], ids=["level", "edge", "one-shot"]
)
loops = pytest.mark.parametrize("iterate", [lambda ep: ep.wait(0.1), iter], ids=["wait", "endless"])


@masks
@loops
@pytest.mark.lasts(120)
@pytest.mark.usefixtures("fast_switching")
def test_two_threads_iterate_while_a_third_registers_again(
    ep: Epoll, iterate: Iterate, mask: Event, effort: Effort, pool: ThreadPoolExecutor
) -> None:
    """Each event is of a present registration that asked for it, and that of the last one is reported.

    Every second round asks for an event that never occurs: an event of it is one of the round before.
    """
    fds = [os.eventfd(1) for _ in range(8)]
    # By fd: the data of registrations that are gone for good. Written before the check reads it.
    gone: dict[int, int] = dict.fromkeys(fds, -1)
    rounds = effort(300, 60_000) + 1
    # The fds whose last registration was reported.
    last: set[int] = set()
    wrong = []
    for fd in fds:
        ep.register(fd, mask, (fd, 0))

    def walk() -> None:
        while not ep.closed:
            events = iterate(ep)
            while True:
                before = dict(gone)
                event = next(events, None)
                if event is None:
                    break
                fd, round = event[0]
                if round == rounds - 1:
                    last.add(fd)
                if round <= before[fd] or round % 2:
                    wrong.append(event)

    def walk_until_closed() -> None:
        with contextlib.suppress(ValueError):
            walk()

    walks = [pool.submit(walk_until_closed) for _ in range(2)]
    for round in range(1, rounds):
        for fd in fds:
            ep.unregister(fd)
            gone[fd] = round - 1
            ep.register(fd, Event.PRI if round % 2 else mask, (fd, round))
    try:
        until(lambda: last == set(fds))
    finally:
        ep.close()
    for walked in walks:
        walked.result()
    assert wrong == []
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


def in_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def leave_in_another_thread(iterate: Callable[[], Iterator[Any]]) -> Any:
    return in_thread(lambda: by_exception(iterate()))


def fetched_by_another_thread(iterate: Callable[[], Iterator[Any]]) -> Any:
    """It has the first event; here the iterator is dropped."""

    def begin() -> tuple[Iterator[Any], Any]:
        events = iterate()
        return events, next(events)

    return in_thread(begin)[1]


leave = pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda iterate: by_break(iterate()), id="break"),
        pytest.param(lambda iterate: by_exception(iterate()), id="exception"),
        pytest.param(leave_in_another_thread, id="in another thread"),
        pytest.param(fetched_by_another_thread, id="begun in another thread"),
    ],
)
loses_no_event = pytest.mark.parametrize(
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


@edges
@leave
@loses_no_event
def test_leaving_a_loop_after_one_of_five_loses_no_event(
    make: Any, iterate: Iterate, mask: Event, leave: Callable[..., Any], eventfd: Eventfd
) -> None:
    fds = [eventfd(1) for _ in range(5)]
    with make() as ep:
        for fd in fds:
            ep.register(fd, mask)
        data, _ = leave(lambda: iterate(ep))
        gc.collect()
        assert data == fds[0]
        assert sorted(data for data, _ in ep.poll(0)) == fds[1:], "the four others come again, the first not"
        assert ep.poll(0) == []


@edges
@loses_no_event
def test_leaving_a_loop_after_each_event_loses_none(
    make: Any, iterate: Iterate, mask: Event, eventfd: Eventfd
) -> None:
    """A loop that is left at every event gets them all."""
    fds = [eventfd(1) for _ in range(5)]
    with make() as ep:
        for fd in fds:
            ep.register(fd, mask)
        seen = [next(iterate(ep), (-1, 0))[0] for _ in fds]
        assert sorted(seen) == fds
        assert ep.poll(0) == []


class Handled:
    """Events that are posted to eventfds one at a time, each when the one before has been handled."""

    def __init__(self, fds: list[int], total: int) -> None:
        self.left = dict.fromkeys(fds, total)
        self.lock = threading.Lock()

    def handle(self, fd: int) -> None:
        with self.lock, contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
            self.left[fd] -= 1
            if self.left[fd] > 0:
                os.eventfd_write(fd, 1)

    def done(self) -> bool:
        return not any(self.left.values())

    def finish(self, patience: float) -> bool:
        """Return True when all is done, False when nothing has come for so many seconds."""
        before, since = dict(self.left), time.monotonic()
        while not self.done():
            time.sleep(0.005)
            if self.left != before:
                before, since = dict(self.left), time.monotonic()
            elif time.monotonic() - since > patience:
                return False
        return True


@pytest.mark.lasts(120)
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize(
    ("make", "iterate", "patience"),
    [
        pytest.param(pyepoll.Epoll, lambda ep: ep.wait(0.05), 10, id="wait"),
        pytest.param(pyepoll.Epoll, iter, 10, id="endless"),
        pytest.param(
            select.epoll,
            lambda ep: iter(ep.poll(0.05)),
            1,
            id="stock",
            marks=pytest.mark.xfail(raises=AssertionError, reason="the list is lost, and its edges with it"),
        ),
    ],
)
def test_threads_that_leave_early_lose_nothing(
    make: Any,
    iterate: Iterate,
    patience: float,
    eventfd: Eventfd,
    effort: Effort,
    show: Callable[[str], None],
    pool: ThreadPoolExecutor,
) -> None:
    """Four threads leave their loops at random, by break and by exception: one lost event would end it."""
    fds = [eventfd(1) for _ in range(16)]
    one_shots = frozenset(fds[::2])
    each = effort(500, 20_000)
    handled = Handled(fds, each)
    done = threading.Event()

    def walk(ep: Any, chance: random.Random) -> None:
        for fd, _ in iterate(ep):
            handled.handle(fd)
            if fd in one_shots:
                # Stock has no rearm.
                ep.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
            if done.is_set() or chance.random() < 0.4:
                break
            if chance.random() < 0.2:
                raise RuntimeError

    def walk_again_and_again(ep: Any, seed: int) -> None:
        chance = random.Random(seed)
        # The end of an endless iteration is close().
        while not done.is_set():
            with contextlib.suppress(RuntimeError):
                walk(ep, chance)

    with make() as ep:
        for fd in fds:
            ep.register(fd, select.EPOLLIN | (select.EPOLLONESHOT if fd in one_shots else select.EPOLLET))
        walks = [pool.submit(walk_again_and_again, ep, seed) for seed in range(4)]
        all_came = handled.finish(patience)
        left = dict(handled.left)
        done.set()
    # A call under way when the epoll is closed raises its error; stock's, also that of the closed fd.
    expected = (ValueError, OSError) if make is select.epoll else (ValueError,)
    for walked in walks:
        with contextlib.suppress(*expected):
            walked.result()
    show(f"{sum(left.values())} events missing of {each * len(fds)}")
    assert all_came


@edges
def test_an_iterator_released_before_its_first_step_returns_its_events(
    ep: Epoll, eventfd: Eventfd, mask: Event
) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, mask)
    ep.wait(0)
    assert sorted(data for data, _ in ep.wait(0)) == fds
    assert ep.poll(0) == []


@edges
def test_a_batch_used_up_is_not_armed_again(ep: Epoll, eventfd: Eventfd, mask: Event) -> None:
    ep.register(eventfd(1), mask)
    events = ep.wait(0)
    assert len(list(events)) == 1
    del events
    assert ep.poll(0) == []


@edges
def test_an_iterator_in_use_keeps_its_events(ep: Epoll, eventfd: Eventfd, mask: Event) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, mask)
    events = ep.wait(0)
    assert ep.poll(0) == []
    assert [data for data, _ in events] == fds


@edges
def test_events_given_back_reach_a_wait_in_another_thread(
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
def test_an_fd_registered_during_a_wait_is_reported(
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
def test_several_fds_registered_during_a_wait_are_reported(
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


def test_a_refused_modify_loses_no_edge(ep: Epoll, eventfd: Eventfd) -> None:
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
def test_events_that_could_not_be_handed_out_are_given_back(
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
def test_an_iterator_continues_with_the_event_that_failed(
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


def test_level_events_are_not_armed_again(ep: Epoll, eventfd: Eventfd) -> None:
    """They make no system call: a modify would queue them as new."""
    fds = [eventfd(1) for _ in range(5)]
    for fd in fds:
        ep.register(fd, Event.IN)
    by_break(ep.wait(0))
    assert sorted(data for data, _ in ep.poll(0)) == fds


def test_a_one_shot_modified_meanwhile_is_not_armed_again(ep: Epoll, eventfd: Eventfd) -> None:
    """Its handler, or another thread, has set the next state: arming it again would be wrong."""
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    events = ep.wait(0)
    next(events)
    ep.modify(fds[1], Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(fds[1], Event.IN)]
    ep.modify(fds[2], Event.PRI | Event.ONESHOT)
    del events
    assert ep.poll(0) == [], "disarmed by the poll; modified to ask for something else"


def test_an_edge_rearmed_meanwhile_is_reported_once(ep: Epoll, eventfd: Eventfd) -> None:
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
    """The kernel refuses to modify an exclusive registration, so it is removed and added again."""
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
def test_an_fd_unregistered_or_replaced_meanwhile_is_not_armed(
    ep: Epoll, mask: Event, make_pipe: Any
) -> None:
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


def test_an_iterator_may_be_released_after_close(ep: Epoll, eventfd: Eventfd) -> None:
    for _ in range(3):
        ep.register(eventfd(1), Event.IN | Event.ET)
    events, endless = ep.wait(0), iter(ep)
    ep.close()
    assert list(events) == []
    assert list(endless) == []
    del events, endless


def test_an_iterator_freed_by_the_collector_returns_its_events(ep: Epoll, eventfd: Eventfd) -> None:
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
    before = ep.stats().stale_events
    events = ep.wait(0)
    for fd in fds:
        ep.unregister(fd)
    assert list(events) == []
    assert ep.stats().stale_events == before + 5
    assert ep.stats().rebuilds == 0, "a late event is not a stale registration"


def test_stale_events_of_a_foreign_instance_are_dropped(eventfd: Eventfd) -> None:
    """Other programs register there too, but its own registrations are known."""
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
