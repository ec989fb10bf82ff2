"""A child's Epoll is its own, and nothing that a child does costs the parent an event."""

import contextlib
import errno
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe, no_fd_left, open_fds
from support.kernel import agree, fdinfo
from support.processes import SECONDS, begin, end, fork, in_child, run
from support.threads import keep_waking, until, waiters

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]


def more_are_done(waits: list[Any], than: int) -> Callable[[], bool]:
    return lambda: sum(wait.done() for wait in waits) > than


def registrations_of(ep: Any) -> list[tuple[int, int, int]]:
    return sorted((fd, *rest) for fd, rest in fdinfo(ep).items())


@pytest.mark.parametrize(
    "make",
    [
        pyepoll.Epoll,
        pytest.param(
            select.epoll,
            marks=pytest.mark.xfail(raises=AssertionError, reason="the child works on the parent's instance"),
        ),
    ],
)
@pytest.mark.parametrize("how", ["unregister", "poll", "modify", "register", "close"])
def test_a_child_costs_the_parent_no_event(
    make: Any, how: str, make_pipe: Callable[[], Pipe], request: Any
) -> None:
    if make is select.epoll and how == "close":
        pytest.skip("closing a copy of the fd is harmless in stock as well")
    pipes = [make_pipe() for _ in range(3)]
    extra = make_pipe()

    def child() -> None:
        if how == "unregister":
            for pipe in pipes:
                ep.unregister(pipe.read)
        elif how == "poll":
            assert len(ep.poll(0)) == 3
        elif how == "modify":
            for pipe in pipes:
                ep.modify(pipe.read, 0)
        elif how == "register":
            ep.register(extra.read, select.EPOLLIN)
        ep.close()

    with make() as ep:
        for pipe in pipes:
            ep.register(pipe.read, select.EPOLLIN | select.EPOLLONESHOT)
            os.write(pipe.write, b"x")
        before = registrations_of(ep)
        assert in_child(child) == ""
        assert registrations_of(ep) == before
        assert sorted(fd for fd, _ in ep.poll(0)) == [pipe.read for pipe in pipes]


@pytest.mark.parametrize("first", ["fileno", "poll", "wait", "iter", "register", "unregister", "rearm"])
def test_a_childs_copy_reports_events(
    ep: Epoll, eventfd: Eventfd, make_pipe: Callable[[], Pipe], first: str
) -> None:
    a, b = make_pipe(), make_pipe()
    ep.register(a.read, Event.IN, "a")
    ep.register(b.read, Event.IN | Event.ET, ["b"])
    new = eventfd(1)

    def child() -> None:
        actions: dict[str, Callable[[], object]] = {
            "fileno": lambda: ep.fileno(),
            "poll": lambda: ep.poll(0),
            "wait": lambda: list(ep.wait(0)),
            "iter": lambda: iter(ep),
            "register": lambda: ep.register(new, Event.IN | Event.ONESHOT, "new"),
            "unregister": lambda: ep.unregister(a.read),
            "rearm": lambda: ep.rearm(a.read),
        }
        actions[first]()
        expected = {a.read: (Event.IN, "a"), b.read: (Event.IN | Event.ET, ["b"])}
        if first == "register":
            expected[new] = (Event.IN | Event.ONESHOT, "new")
        if first == "unregister":
            del expected[a.read]
        assert dict(ep.registrations) == expected
        assert ep.fileno() == number
        if first != "iter":
            assert agree(ep)
        os.write(a.write, b"x")
        os.write(b.write, b"x")
        events = {str(data) for data, _ in ep.wait(5)} | {str(data) for data, _ in ep.wait(0.1)}
        assert events == {str(data) for _, data in expected.values()}

    number, before = ep.fileno(), registrations_of(ep)
    assert in_child(child) == ""
    assert registrations_of(ep) == before
    # The pipes are shared, and the child's data is there: its poll took no event.
    assert sorted(str(data) for data, _ in ep.poll(0)) == ["['b']", "a"]


def test_a_fired_one_shot_is_disarmed_in_the_child(ep: Epoll, eventfd: Eventfd) -> None:
    fired, armed = eventfd(1), eventfd()
    ep.register(fired, Event.IN | Event.ONESHOT)
    ep.register(armed, Event.IN | Event.ONESHOT)
    assert len(ep.poll(0)) == 1

    def child() -> None:
        assert ep.poll(0) == []
        os.eventfd_write(armed, 1)
        assert ep.poll(5) == [(armed, Event.IN)]
        ep.rearm(fired)
        assert ep.poll(5) == [(fired, Event.IN)]

    assert in_child(child) == ""
    assert ep.poll(0) == [(armed, Event.IN)]


def test_a_grandchilds_copy_is_its_own(ep: Epoll, make_pipe: Callable[[], Pipe]) -> None:
    pipe, other = make_pipe(), make_pipe()
    ep.register(pipe.read, Event.IN)
    ep.register(other.read, Event.IN)

    def grandchild() -> None:
        assert sorted(ep.registrations) == [pipe.read]
        os.write(pipe.write, b"x")
        assert ep.poll(5) == [(pipe.read, Event.IN)]
        ep.unregister(pipe.read)
        ep.close()

    def child() -> None:
        ep.unregister(other.read)
        assert in_child(grandchild) == ""
        assert agree(ep)
        assert ep.poll(5) == [(pipe.read, Event.IN)]

    assert in_child(child) == ""
    assert agree(ep)
    assert ep.poll(5) == [(pipe.read, Event.IN)]


def test_a_grandchilds_copy_works_if_the_child_did_not_use_its_own(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN)

    def grandchild() -> None:
        assert ep.poll(5) == [(fd, Event.IN)]
        ep.unregister(fd)

    def child() -> None:
        assert in_child(grandchild) == ""

    assert in_child(child) == ""
    assert ep.poll(5) == [(fd, Event.IN)]


def test_two_children_and_the_parent_have_separate_lists(ep: Epoll, make_pipe: Callable[[], Pipe]) -> None:
    """Each has a list of its own, also of fds registered after the fork."""
    pipe, go = make_pipe(), make_pipe()
    ep.register(pipe.read, Event.IN)
    children = []
    for _ in range(2):
        child = fork(SECONDS)
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                select.select([go.read], [], [])
                assert sorted(ep.registrations) == [pipe.read]
                assert agree(ep)
                assert ep.poll(5) == [(pipe.read, Event.IN)]
                ep.unregister(pipe.read)
                status = 0
            os._exit(status)
        children.append(child)
    ep.register(go.write, Event.OUT)
    os.write(pipe.write, b"x")
    os.write(go.write, b"x")
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert agree(ep)
    assert len(ep.poll(0)) == 2


def test_an_unused_copy_makes_no_system_call(ep: Epoll, eventfd: Eventfd) -> None:
    ep.register(eventfd(1), Event.IN)
    before = registrations_of(ep)

    def child() -> None:
        fds = os.listdir("/proc/self/fd")
        assert len(ep) == 1
        assert ep.closed is False
        assert os.listdir("/proc/self/fd") == fds
        # Still the parent's instance: nothing was built.
        assert [(fd, *rest) for fd, rest in fdinfo(number).items()] == before

    number = ep._instance_fd()
    assert in_child(child) == ""


def test_collection_in_the_child_leaves_the_parents_epoll_open(eventfd: Eventfd) -> None:
    fd = eventfd(1)
    held = [pyepoll.Epoll[Any]()]
    held[0].register(fd, Event.IN, held[0])
    number = held[0].fileno()

    def child() -> None:
        held.clear()
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    assert in_child(child) == ""
    assert held[0].poll(0) == [(held[0], Event.IN)]
    held[0].close()


def test_the_parents_iterator_gives_no_event_back_in_the_child(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    events = ep.wait(0)
    held = [events]
    next(events)
    before = registrations_of(ep)

    def child() -> None:
        nonlocal events
        held.clear()
        del events
        gc.collect()

    assert in_child(child) == ""
    assert registrations_of(ep) == before
    assert [data for data, _ in events] == fds[1:]


def test_an_iterator_continues_in_parent_and_child(ep: Epoll, eventfd: Eventfd) -> None:
    """Fetched events are in the memory of each process; after that each waits on an instance of its own."""
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    events = iter(ep)
    assert next(events) == (fds[0], Event.IN)

    def child() -> None:
        assert [next(events) for _ in range(2)] == [(fd, Event.IN) for fd in fds[1:]]
        own = eventfd(1)
        ep.register(own, Event.IN | Event.ONESHOT, "own")
        assert next(events) == ("own", Event.IN)
        for fd in fds:
            ep.unregister(fd)
        ep.close()
        assert list(events) == []

    assert in_child(child) == ""
    assert [next(events) for _ in range(2)] == [(fd, Event.IN) for fd in fds[1:]]
    ep.rearm(fds[0])
    assert next(events) == (fds[0], Event.IN)


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_copies_of_nested_epolls_watch_each_other(ep: Epoll, eventfd: Eventfd, first: str) -> None:
    """Whichever the child uses first, its outer one watches its inner one, and the parent's the parent's."""
    fd = eventfd()
    with pyepoll.Epoll[Any]() as inner:
        inner.register(fd, Event.IN)
        ep.register(inner, Event.IN, "inner")
        before = registrations_of(inner), registrations_of(ep)

        def child() -> None:
            for each in (inner, ep) if first == "inner" else (ep, inner):
                assert each.poll(0) == []
            inner.register(eventfd(1), Event.IN, "own")
            assert ep.poll(5) == [("inner", Event.IN)]
            assert inner.poll(0) == [("own", Event.IN)]
            inner.close()
            assert ep.poll(0) == []

        assert in_child(child) == ""
        assert (registrations_of(inner), registrations_of(ep)) == before
        assert ep.poll(0) == []
        os.eventfd_write(fd, 1)
        assert ep.poll(0) == [("inner", Event.IN)]


@pytest.mark.lasts(120)
def test_threads_of_a_child_may_use_the_copy_first_at_once(
    ep: Epoll, eventfd: Eventfd, effort: Effort
) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN)
    number = ep.fileno()
    go = threading.Barrier(8)

    def use(each: int) -> object:
        go.wait(10)
        uses: list[Callable[[], object]] = [
            ep.fileno,
            lambda: sorted(fd for fd, _ in ep.poll(0)),
            lambda: sorted(fd for fd, _ in ep.wait(0)),
            lambda: ep.modify(fds[each % 3], Event.IN, fds[each % 3]),
        ]
        return uses[each % 4]()

    def child() -> None:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(use, range(8))) == [number, fds, fds, None] * 2
        assert agree(ep)
        ep.close()

    for _ in range(effort(5, 200)):
        assert in_child(child) == ""
    assert sorted(fd for fd, _ in ep.poll(0)) == fds


# A waker is an fd like any other: shared.


def test_a_waker_is_shared_with_the_child(ep: Epoll, pool: ThreadPoolExecutor) -> None:
    with pyepoll.Waker() as waker:
        ep.register(waker, Event.IN | Event.ET, waker)

        def child() -> None:
            # Its own copy of the epoll reports the eventfd that both have.
            waker.wake()
            assert ep.poll(5) == [(waker, Event.IN)]
            waker.close()
            with pytest.raises(ValueError, match="closed"):
                waker.clear()

        wait = pool.submit(ep.poll, SECONDS)
        until(lambda: waiters() == 1)
        assert in_child(child) == ""
        assert wait.result(10) == [(waker, Event.IN)]
        assert not waker.closed
        assert waker.clear()
        waker.wake()
        assert ep.poll(5) == [(waker, Event.IN)]


# The fds that the child lacks.


def test_fds_closed_in_the_child_are_not_registered_there(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(3)]
    for fd in fds:
        ep.register(fd, Event.IN)

    def child() -> None:
        os.close(fds[1])
        dropped = ep.stats().lost_registrations
        assert sorted(data for data, _ in ep.poll(0)) == [fds[0], fds[2]]
        assert fds[1] not in ep
        assert ep.stats().lost_registrations == dropped + 1
        assert agree(ep)

    assert in_child(child) == ""
    assert sorted(data for data, _ in ep.poll(0)) == fds


@pytest.mark.parametrize(
    "make",
    [
        pyepoll.Epoll,
        pytest.param(
            select.epoll,
            marks=pytest.mark.xfail(
                raises=AssertionError, reason="acts on another's epoll, or does not say why not"
            ),
        ),
    ],
)
@pytest.mark.parametrize("what", ["pipe", "another epoll", "nothing"])
def test_an_fd_reused_in_the_child_raises_ebadf(
    eventfd: Eventfd, make_pipe: Callable[[], Pipe], make: Any, what: str
) -> None:
    fds, pipe = [eventfd(1), eventfd(1)], make_pipe()

    def child() -> None:
        if what == "nothing":
            os.close(number)
        elif what == "pipe":
            os.dup2(pipe.read, number)
        else:
            stock = select.epoll()
            stock.register(pipe.write, select.EPOLLOUT)
            os.dup2(stock.fileno(), number)
        calls: list[Callable[[], object]] = [
            lambda: ep.poll(0),
            lambda: ep.register(pipe.write),
            lambda: ep.modify(fds[0], 0),
            lambda: ep.unregister(fds[0]),
            lambda: ep.rearm(fds[0]),
            lambda: ep.fileno(),
            lambda: ep.wait(0),
            lambda: next(iter(ep)),
        ]
        for call in calls:
            with pytest.raises(OSError, match=rf"fd {number}\b.*fork"):
                call()
        if begun is not None:
            # The events fetched before the fork are a copy as well; then it waits.
            assert next(begun) == (fds[1], Event.IN)
            with pytest.raises(OSError, match=rf"fd {number}\b.*fork"):
                next(begun)
        ep.close()
        assert ep.closed
        if what == "pipe":
            os.write(pipe.write, b"x")
            assert os.read(number, 1) == b"x"
        if what == "another epoll":
            same = select.epoll.fromfd(number)
            assert same.poll(0) == [(pipe.write, select.EPOLLOUT)]

    with make() as ep:
        for fd in fds:
            ep.register(fd, select.EPOLLIN)
        number = ep.fileno()
        begun = iter(ep) if make is pyepoll.Epoll else None
        if begun is not None:
            assert next(begun) == (fds[0], Event.IN)
        assert in_child(child) == ""
        assert len(ep.poll(0)) == 2


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("make", [pyepoll.Epoll, select.epoll])
def test_a_daemons_new_epoll_is_not_closed_by_the_old_object(
    eventfd: Eventfd, make: Any, registered: bool
) -> None:
    """closerange(), then `ep = Epoll()`: the new one has the old one's fd, and is empty yet."""
    fd, held = eventfd(1), [pyepoll.Epoll[Any]()]
    number = held[0].fileno()
    if registered:
        held[0].register(fd, Event.IN)

    def child() -> None:
        os.close(number)
        new = make()
        assert new.fileno() == number
        held.clear()
        gc.collect()
        os.fstat(number)
        new.close()

    assert in_child(child) == ""
    held[0].close()


def test_a_copy_without_a_free_fd_raises_emfile(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN)

    def child() -> None:
        with no_fd_left(), pytest.raises(OSError, match="fork") as caught:
            ep.poll(0)
        assert caught.value.errno == errno.EMFILE
        assert ep.poll(0) == [(fd, Event.IN)], "and later it works"

    assert in_child(child) == ""
    assert ep.poll(0) == [(fd, Event.IN)]


@pytest.mark.parametrize("whose", ["ours", "an unrelated file", "an unrelated epoll"])
def test_closing_a_copy_without_a_free_fd_closes_no_unrelated_file(
    ep: Epoll, eventfd: Eventfd, whose: str
) -> None:
    """Without a free fd the owner of the fd is unknown: one fd left open is better than an unrelated file
    closed."""
    fd = eventfd(1)
    ep.register(fd, Event.IN)
    number, instance = ep.fileno(), ep._instance_fd()

    def child() -> None:
        if whose == "an unrelated file":
            os.dup2(fd, number)
        elif whose == "an unrelated epoll":
            unrelated = select.epoll()
            unrelated.register(fd, select.EPOLLIN)
            os.dup2(unrelated.fileno(), number)
        before = open_fds()
        with no_fd_left():
            ep.close()
        assert ep.closed
        after = open_fds()
        if whose == "ours":
            for own in number, instance:
                before.pop(own)
                after.pop(own, None)
        assert after == before

    assert in_child(child) == ""
    assert ep.poll(0) == [(fd, Event.IN)]


def test_a_foreign_instance_stays_shared_with_the_child(eventfd: Eventfd) -> None:
    """It is shared on purpose, so the child's object stays on it."""
    fd = eventfd(1)
    with select.epoll() as stock:
        stock.register(fd, select.EPOLLIN)
        ep = pyepoll.Epoll[Any].fromfd(stock.fileno())
        number = ep.fileno()

        def child() -> None:
            assert ep.poll(0) == [(fd, Event.IN)]
            ep.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)

        assert in_child(child) == ""
        assert stock.poll(0) == [(fd, select.EPOLLIN)]


# Threads of the parent. Their functions get all they need: on a free-threaded build a variable of an
# enclosing function has a lock, which in a child stays with a thread of the parent's that it was handed to.


def keep_changing(ep: Epoll, fd: int, done: threading.Event) -> None:
    while not done.is_set():
        ep.register(fd, Event.IN)
        ep.modify(fd, Event.OUT)
        ep.unregister(fd)


def test_fork_while_others_wait_gives_a_working_copy(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    live, ready = eventfd(), eventfd(1)
    ep.register(live, Event.IN | Event.ONESHOT)
    waits = [pool.submit(ep.poll) for _ in range(4)]
    until(lambda: waiters() == 4)

    def child() -> None:
        # No thread waits here, so close() and a rebuild have no waiter to wait for.
        ep.register(ready, Event.IN)
        assert ep.poll(5) == [(ready, Event.IN)]
        number = ep.fileno()
        ep.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    for _ in range(3):
        assert in_child(child) == ""
    assert not any(wait.done() for wait in waits)
    for done in range(len(waits)):
        os.eventfd_write(live, 1)
        until(more_are_done(waits, done))
        os.eventfd_read(live)
        ep.rearm(live)
    assert [wait.result() for wait in waits] == [[(live, Event.IN)]] * 4


def test_fork_while_others_hold_the_ctl_lock_gives_a_working_copy(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    """The lock that a thread of the parent holds is free in the child."""
    done = threading.Event()
    ready = eventfd(1)

    def child() -> None:
        ep.register(ready, Event.IN | Event.ET, "ready")
        until(lambda: ("ready", Event.IN) in ep.poll(0))
        ep.close()

    churns = [pool.submit(keep_changing, ep, eventfd(), done) for _ in range(2)]
    try:
        for _ in range(20):
            assert in_child(child) == ""
    finally:
        done.set()
    for each in churns:
        each.result()
    assert fdinfo(ep) == {}
    assert len(ep) == 0


def test_fork_while_another_waits_in_an_iterator_leaves_it_usable(
    ep: Epoll, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    """In the child no thread waits in it."""
    live = eventfd()
    ep.register(live, Event.IN | Event.ONESHOT)
    events = iter(ep)
    wait = pool.submit(next, events)
    until(lambda: waiters() == 1)

    def child() -> None:
        ep.register(eventfd(1), Event.IN | Event.ONESHOT, "own")
        assert next(events) == ("own", Event.IN)
        ep.close()
        assert list(events) == []

    for _ in range(3):
        assert in_child(child) == ""
    with pytest.raises(RuntimeError, match="waiting in another thread"):
        next(events)
    os.eventfd_write(live, 1)
    assert wait.result(10) == (live, Event.IN)


@pytest.mark.lasts(300)
def test_fork_while_others_wake_leaves_the_waker_usable(
    ep: Epoll, pool: ThreadPoolExecutor, effort: Effort
) -> None:
    """The child's waker works at once, wherever they were in theirs."""
    done = threading.Event()

    def child() -> None:
        seen: list[Any] = []
        deadline = time.monotonic() + 10
        # The parent's threads may clear it first.
        while not seen:
            waker.wake()
            seen = ep.poll(0)
            assert time.monotonic() < deadline
        assert seen == [(waker, Event.IN)]
        waker.close()

    with pyepoll.Waker() as waker:
        ep.register(waker, Event.IN, waker)
        wakes = [pool.submit(keep_waking, waker, done) for _ in range(2)]
        try:
            for _ in range(effort(10, 500)):
                assert in_child(child) == ""
        finally:
            done.set()
        for each in wakes:
            each.result()


@pytest.mark.parametrize("mask", [Event.IN | Event.ONESHOT, Event.IN | Event.ET])
def test_a_released_iterator_in_the_child_returns_its_events(
    ep: Epoll, eventfd: Eventfd, mask: Event
) -> None:
    """As in the parent: a one-shot that was handed out is disarmed, one that was not is reported again."""
    fds = {eventfd(1) for _ in range(5)}
    for fd in fds:
        ep.register(fd, mask)
    batch = ep.wait(0)
    first, _ = next(batch)

    def child() -> None:
        nonlocal batch
        del batch
        again = {fd for fd, _ in ep.poll(0)}
        assert again >= fds - {first}
        assert again == fds - {first} or mask & Event.ET, "an edge may be reported once more"

    assert in_child(child) == ""
    del batch
    assert {fd for fd, _ in ep.poll(0)} == fds - {first}


def test_a_registration_armed_before_the_fork_is_not_given_back(ep: Epoll, eventfd: Eventfd) -> None:
    """Its event of the batch in hand is an earlier one: the later one has been handed out."""
    fd = eventfd(1)
    ep.register(fd, Event.IN | Event.ONESHOT)
    batch = ep.wait(0)
    ep.rearm(fd)
    assert ep.poll(0) == [(fd, Event.IN)]

    def child() -> None:
        nonlocal batch
        del batch
        assert ep.poll(0) == []

    assert in_child(child) == ""
    del batch
    assert ep.poll(0) == []


def test_a_fork_after_a_rebuild_returns_the_events_of_a_batch_in_use(ep: Epoll, eventfd: Eventfd) -> None:
    """An event fetched before a rebuild that found its one-shot fired is reported again if not handed out."""
    fd, stale_fd = eventfd(1), os.eventfd(1)
    ep.register(fd, Event.IN | Event.ONESHOT)
    batch = ep.wait(0)
    ep.register(stale_fd, Event.IN)
    duplicate = os.dup(stale_fd)
    os.close(stale_fd)
    with pytest.raises(OSError, match="not open"):
        ep.unregister(stale_fd)
    for _ in range(10):
        assert ep.poll(0) == []
    os.close(duplicate)
    assert ep.stats().rebuilds == 1

    def child() -> None:
        nonlocal batch
        del batch
        assert ep.poll(0) == [(fd, Event.IN)]

    assert in_child(child) == ""
    del batch
    assert ep.poll(0) == [(fd, Event.IN)]


def test_fork_in_a_signal_handler_continues_the_wait(ep: Epoll, eventfd: Eventfd) -> None:
    live = eventfd()
    ep.register(live, Event.IN)
    reports: list[str] = []

    def child() -> None:
        os.eventfd_write(live, 1)
        assert ep.poll(5) == [(live, Event.IN)]
        ep.unregister(live)

    before = signal.signal(signal.SIGALRM, lambda *_: reports.append(in_child(child)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert ep.poll(10) == [(live, Event.IN)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert reports == [""]


def test_a_child_forked_in_a_handler_continues_the_wait() -> None:
    """The child comes back from its handler into the wait, which is its own from there on."""
    out = run("""
        import os, signal
        import pyepoll
        from pyepoll import Event

        ep, fd = pyepoll.Epoll(), os.eventfd(0)
        ep.register(fd, Event.IN | Event.ONESHOT)
        child = -1

        def fork(*_):
            global child
            child = os.fork()

        signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        events = ep.poll(0.3)
        assert events == [], events
        if child == 0:
            own = os.eventfd(1)
            ep.register(own, Event.IN)
            assert ep.poll(5) == [(own, Event.IN)]
            ep.unregister(fd)
        else:
            assert os.waitpid(child, 0)[1] == 0
            os.eventfd_write(fd, 1)
            assert ep.poll(5) == [(fd, Event.IN)]
            print("fine")
    """)
    assert out == "fine\n"


@pytest.mark.parametrize("where", ["fileno", "an index", "the finalizer of data", "the class of events"])
def test_fork_within_a_call_returns_in_both(where: str) -> None:
    """Both come back from the call that they are in, the child on its own instance."""
    out = run(f"""
        import os
        import pyepoll
        from pyepoll import Event

        ep, fd, child = pyepoll.Epoll(), os.eventfd(1), None
        where = {where!r}

        class Fork:
            def fileno(self):
                global child
                child = os.fork()
                return fd

            def __index__(self):
                self.fileno()
                return int(Event.IN)

            def __del__(self):
                if where == "the finalizer of data":
                    self.fileno()

        def event(mask):
            Fork().fileno()
            return Event(mask)

        if where == "fileno":
            ep.register(Fork(), Event.IN)
        elif where == "an index":
            ep.register(fd, Fork())
        elif where == "the finalizer of data":
            ep.register(fd, Event.IN, Fork())
            ep.modify(fd, Event.IN, fd)
        else:
            ep.register(fd, Event.IN)
            pyepoll._epoll._use_events(event)
            assert ep.poll() == [(fd, Event.IN)]
        assert ep.poll(5) == [(fd, Event.IN)]
        if child == 0:
            ep.unregister(fd)
            assert ep.poll(0) == []
            ep.close()
        else:
            assert os.waitpid(child, 0)[1] == 0
            assert ep.poll(0) == [(fd, Event.IN)]
            ep.unregister(fd)
            print("fine")
    """)
    assert out == "fine\n"


@pytest.mark.lasts(300)
@pytest.mark.parametrize(
    ("make", "patience"),
    [
        (pyepoll.Epoll, 10),
        pytest.param(
            *(select.epoll, 0.5),
            marks=pytest.mark.xfail(
                raises=(AssertionError, FileNotFoundError),
                reason="children take events and registrations away",
            ),
        ),
    ],
)
def test_forks_under_traffic_lose_no_event(
    make_pipe: Callable[[], Pipe], effort: Effort, show: Callable[[str], None], make: Any, patience: float
) -> None:
    """Every number that is written is reported in the parent, whatever its children do meanwhile."""
    pipes = [make_pipe() for _ in range(8)]
    masks = [select.EPOLLIN | (select.EPOLLET, select.EPOLLONESHOT)[each % 2] for each in range(8)]
    forks, unread = effort(30, 1000), threading.Semaphore(64)
    done, sent = threading.Event(), [0] * len(pipes)

    def write() -> None:
        """Numbers of 8 bytes, in order in each pipe, some of them on their way at a time."""
        while not done.is_set():
            for each, pipe in enumerate(pipes):
                unread.acquire()
                os.write(pipe.write, sent[each].to_bytes(8, "little"))
                sent[each] += 1

    def unregister() -> None:
        for pipe in pipes:
            ep.unregister(pipe.read)
        # Closed by the end of the process.

    def poll() -> None:
        for _ in range(3):
            ep.poll(0)

    def close() -> None:
        ep.close()

    def all_of_it() -> None:
        poll()
        unregister()
        close()

    programs = [unregister, poll, close, lambda: None, all_of_it]
    fd_of = {pipe.read: each for each, pipe in enumerate(pipes)}
    read, children = [0] * len(pipes), list[tuple[int, int]]()

    def serve() -> int:
        """Take the ready events; all of them, as edges and one-shots require."""
        count = 0
        for fd, _ in ep.poll(0.01):
            each = fd_of[fd]
            with contextlib.suppress(BlockingIOError):
                while numbers := os.read(fd, 512):
                    for at in range(0, len(numbers), 8):
                        assert int.from_bytes(numbers[at : at + 8], "little") == read[each]
                        read[each] += 1
                        count += 1
                        unread.release()
            if masks[each] & select.EPOLLONESHOT:
                ep.modify(fd, masks[each])
        return count

    def all_read() -> bool:
        serve()
        return read == sent

    with make() as ep, ThreadPoolExecutor(1) as writers:
        for pipe, mask in zip(pipes, masks, strict=True):
            ep.register(pipe.read, mask)
        before = registrations_of(ep)
        writer = writers.submit(write)
        start = time.monotonic()
        try:
            for each in range(forks):
                children.append(begin(programs[each % len(programs)]))
                if len(children) == 4:
                    assert end(*children.pop(0)) == ""
                # The parent must see these before it forks again; a lost event ends that.
                more, deadline = 50, time.monotonic() + patience
                while more > 0:
                    more -= serve()
                    assert time.monotonic() < deadline, "an event or a registration is lost"
            done.set()
            unread.release(64)
            writer.result(10)
            until(all_read)
        finally:
            done.set()
            unread.release(64)
            for child in children:
                end(*child)
        rate = forks / (time.monotonic() - start)
        show(f"{sum(read):,} events, none lost in {forks} forks, {rate:.0f} a second")
        assert registrations_of(ep) == before


# How programs fork.


def test_multiprocessing_children_leave_the_parent_unchanged(
    ep: Epoll, make_pipe: Callable[[], Pipe]
) -> None:
    pipe = make_pipe()
    ep.register(pipe.read, Event.IN, "data")

    def child() -> None:
        os.write(pipe.write, b"x")
        assert ep.poll(5) == [("data", Event.IN)]
        ep.unregister(pipe.read)
        ep.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert ep.poll(5) == [("data", Event.IN)]


inherited: list[Epoll] = []


def poll_inherited(seconds: float) -> list[Any]:
    (ep,) = inherited
    events = ep.poll(seconds)
    ep.unregister(events[0][0])
    return events


def test_a_multiprocessing_pool_works_beside_an_epoll(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, Event.IN)
    inherited.append(ep)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        workers = multiprocessing.get_context("fork").Pool(2)
    try:
        # Whichever worker does it, it has a list of its own to take from.
        assert len(workers.apply(poll_inherited, [5])) >= 1
    finally:
        workers.close()
        workers.join()
        inherited.clear()
    assert sorted(ep.poll(0)) == [(fd, Event.IN) for fd in fds]


def test_subprocess_costs_no_epoll_call() -> None:
    """From the first process on every call to the kernel's epoll but the waits fails: none is needed."""
    out = run("""
        import errno, gc, os, subprocess, sys
        from support.seccomp import deny
        import pyepoll
        from pyepoll import Event

        ep, fd = pyepoll.Epoll(), os.eventfd(1)
        ep.register(fd, Event.IN)
        assert ep.poll(0) == [(fd, Event.IN)]
        for syscall in ("epoll_create1", "epoll_ctl"):
            deny(syscall, errno.ENOTRECOVERABLE)
        before, fds = ep.stats(), os.listdir("/proc/self/fd")
        for options in ({}, {"preexec_fn": gc.collect}, {"close_fds": False}):
            subprocess.run([sys.executable, "-S", "-c", ""], check=True, **options)
        os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], os.environ), 0)
        assert ep.stats() == before
        assert os.listdir("/proc/self/fd") == fds
        assert ep.poll(0) == [(fd, Event.IN)]

        # With a copy that is used it is otherwise.
        child = os.fork()
        if child == 0:
            try:
                ep.poll(0)
            except OSError as error:
                os._exit(error.errno)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOTRECOVERABLE
        print("fine")
    """)
    assert out == "fine\n"


def test_subprocesses_inherit_no_epoll(ep: Epoll, eventfd: Eventfd) -> None:
    """It gets no copy, and leaves none behind."""
    fd = eventfd(1)
    ep.register(fd, Event.IN)
    before = registrations_of(ep)
    script = f"import os\ntry:\n    os.fstat({ep.fileno()})\nexcept OSError:\n    print('closed')"
    options: dict[str, Any]
    for options in ({}, {"preexec_fn": gc.collect}, {"close_fds": False}):
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, **options
        )
        assert done.stdout == "closed\n"
        assert registrations_of(ep) == before
        assert ep.poll(0) == [(fd, Event.IN)]


@pytest.mark.parametrize("keep", [True, False], ids=["keeping the fds", "closing all fds"])
def test_a_daemon_can_use_its_copy(
    ep: Epoll, eventfd: Eventfd, make_pipe: Callable[[], Pipe], keep: bool
) -> None:
    """Fork, setsid, fork; and as daemons do, close everything that was inherited."""
    fd, report = eventfd(1), make_pipe()
    ep.register(fd, Event.IN)

    def daemon() -> None:
        if keep:
            assert ep.poll(5) == [(fd, Event.IN)]
        else:
            os.dup2(report.write, 2)
            os.closerange(3, 200)
            with pytest.raises(OSError, match="fork"):
                ep.poll(0)
            ep.close()
            # The eventfd that wakes waiters was closed with the rest, and its fd may be an unrelated file.
            unrelated = os.eventfd(7, os.EFD_NONBLOCK)
            new = pyepoll.Epoll[int]()
            with ThreadPoolExecutor() as pool:
                wait = pool.submit(new.poll)
                until(lambda: waiters() == 1)
                new.close()
                with pytest.raises(ValueError, match="closed"):
                    wait.result(10)
            assert os.eventfd_read(unrelated) == 7
        os.write(report.write if keep else 2, b"fine")

    def parent_of_the_daemon() -> None:
        os.setsid()
        if fork(SECONDS) == 0:
            try:
                daemon()
            except BaseException:
                with contextlib.suppress(OSError):
                    os.write(report.write if keep else 2, traceback.format_exc().encode())

    start = time.monotonic()
    assert in_child(parent_of_the_daemon) == ""
    assert select.select([report.read], [], [], SECONDS)[0], time.monotonic() - start
    assert os.read(report.read, 60000).decode() == "fine"
    assert ep.poll(0) == [(fd, Event.IN)]
