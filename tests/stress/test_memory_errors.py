"""Every allocation of every public function fails in turn: nothing is leaked, nothing half-registered."""

import contextlib
import gc
import os
import select
import sys
from collections.abc import Callable, Iterator
from functools import partial
from selectors import EVENT_READ
from typing import Any

import pytest
from support.fds import open_fds
from support.kernel import agree, fdinfo_lines
from support.no_memory import MOST_ALLOCATIONS, without_memory
from support.processes import in_child
from support.surface import CALLS, REFUSALS, Bench, refused
from support.threads import until

import pyepoll
from pyepoll import Event, raw

Epoll = pyepoll.Epoll[Any]

Call = Callable[[], object]


def failing_in_turn(prepare: Callable[[], Call], check: Callable[[bool], None]) -> int:
    """Run the call that `prepare` returns with its first, second, … allocation failing, until none is left;
    after each, pass to `check` whether it succeeded. Returns the number of failed calls."""
    failed = in_a_row = 0
    gc.disable()
    try:
        for start in range(MOST_ALLOCATIONS):
            done = without_memory(start, prepare())
            check(done)
            failed += not done
            in_a_row = in_a_row + 1 if done else 0
            # The interpreter does without some of its own.
            if in_a_row == 3:
                return failed
    finally:
        gc.enable()
    raise AssertionError("it allocates without end")


def use_up_free_pairs() -> object:
    """The interpreter keeps tuples for reuse; taking one of these cannot fail."""
    return [(number, None) for number in range(5000)]


class Data:
    """Data to register: its reference count shows leaks."""


@pytest.fixture
def fd() -> Any:
    # Far from all others: its page of the interest list is not there yet.
    first = os.eventfd(1, os.EFD_NONBLOCK)
    fd = os.dup2(first, 600)
    os.close(first)
    yield fd
    os.close(fd)


def test_failing_allocations_are_detected() -> None:
    """A call that does allocate is seen to fail."""
    assert failing_in_turn(lambda: lambda: [object()], lambda done: None) > 0


def test_a_failed_constructor_leaves_no_fd() -> None:
    before = open_fds()
    made: list[Epoll] = []

    def check(done: bool) -> None:
        assert len(made) == done
        for ep in made:
            ep.close()
        made.clear()
        gc.collect()
        assert open_fds() == before

    def make() -> None:
        made[:] = [pyepoll.Epoll[Any]()]

    made.append(pyepoll.Epoll())  # A list that has room allocates nothing.
    made.pop().close()
    assert failing_in_turn(lambda: make, check) > 0


def test_a_failed_register_registers_nothing(fd: int) -> None:
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        return lambda: eps[0].register(fd, Event.IN, data)

    def check(done: bool) -> None:
        (ep,) = eps
        assert agree(ep)
        assert (fd in ep) is done
        assert sys.getrefcount(data) == references + done
        assert ep.poll(0) == ([(data, Event.IN)] if done else [])
        ep.close()
        eps.clear()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_a_failed_register_with_default_data_registers_nothing(fd: int) -> None:
    eps: list[Epoll] = []

    class File:
        def fileno(self) -> int:
            return fd

    file = File()

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        return lambda: eps[0].register(file)

    def check(done: bool) -> None:
        (ep,) = eps
        assert agree(ep)
        assert (fd in ep) is done
        ep.close()
        eps.clear()

    assert failing_in_turn(prepare, check) > 0


@pytest.mark.parametrize("reported", [True, False])
def test_a_failed_modify_changes_nothing(ep: Epoll, fd: int, reported: bool) -> None:
    old, new = Data(), Data()
    references = sys.getrefcount(old), sys.getrefcount(new)
    ep.register(fd, Event.IN, old)

    def prepare() -> Call:
        ep.modify(fd, Event.IN, old)
        if reported:
            assert len(ep.poll(0)) == 1
        return lambda: ep.modify(fd, Event.OUT, new)

    def check(done: bool) -> None:
        assert agree(ep)
        assert ep.registrations[fd] == ((Event.OUT, new) if done else (Event.IN, old))
        assert [data for data, _ in ep.poll(0)] == [new if done else old]

    failing_in_turn(prepare, check)
    ep.close()
    assert (sys.getrefcount(old), sys.getrefcount(new)) == references


@pytest.mark.parametrize("method", ["unregister", "rearm", "modify"])
def test_a_refused_call_without_memory_raises(ep: Epoll, closed_fd: int, method: str) -> None:
    """The making of the error itself has no memory."""

    def call() -> None:
        try:
            getattr(ep, method)(closed_fd, *([1] if method == "modify" else []))
        except OSError:
            pass

    failing_in_turn(lambda: call, lambda done: None)
    assert agree(ep)


def test_a_failed_unregister_keeps_or_removes_all(ep: Epoll, fd: int) -> None:
    data = Data()
    references = sys.getrefcount(data)

    def prepare() -> Call:
        if fd not in ep:
            ep.register(fd, Event.IN, data)
        return lambda: ep.unregister(fd)

    def check(done: bool) -> None:
        assert agree(ep)
        assert (fd in ep) is not done
        assert sys.getrefcount(data) == references + (not done)

    failing_in_turn(prepare, check)


@pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT], ids=str)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "again"])
def test_a_failed_poll_loses_no_event(fd: int, mask: Event, fresh: bool) -> None:
    """An event that a poll fetched and could not hand out is in the next."""
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        eps[0].register(fd, mask, data)
        if not fresh:
            assert len(eps[0].poll(0)) == 1
            eps[0].rearm(fd)
        return lambda: eps[0].poll(0)

    def check(done: bool) -> None:
        (ep,) = eps
        assert ep.poll(0) == ([] if done and mask != Event.IN else [(data, Event.IN)])
        ep.close()
        eps.clear()
        gc.collect()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_a_failed_wait_loses_no_event(fd: int) -> None:
    """The call itself; the steps of its iterator are another test's."""
    data = Data()
    references = sys.getrefcount(data)
    with pyepoll.Epoll[Any]() as ep:
        ep.register(fd, Event.IN | Event.ET, data)

        def prepare() -> Call:
            ep.rearm(fd)
            return lambda: ep.wait(0, sigmask=[1, 2])

        def check(done: bool) -> None:
            gc.collect()
            assert ep.poll(0) == [(data, Event.IN)], "dropped before it was handed out"

        assert failing_in_turn(prepare, check) > 0
    assert sys.getrefcount(data) == references


@pytest.mark.parametrize("way", ["wait", "endless"])
def test_failed_steps_of_an_iterator_lose_no_event(fd: int, way: str) -> None:
    data = Data()
    references = sys.getrefcount(data)
    eps: list[Epoll] = []
    pairs: list[object] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        eps[0].register(fd, Event.IN, data)
        events = iter(eps[0]) if way == "endless" else eps[0].wait(0)
        pairs.append(use_up_free_pairs())
        return lambda: next(events)

    def check(done: bool) -> None:
        (ep,) = eps
        assert ep.poll(0) == [(data, Event.IN)]
        ep.close()
        eps.clear()
        pairs.clear()
        gc.collect()
        assert sys.getrefcount(data) == references

    assert failing_in_turn(prepare, check) > 0


def test_a_failed_poll_of_many_events_loses_none(ep: Epoll, eventfd: Callable[..., int]) -> None:
    """A list with some of them made, and an array for the kernel that must grow."""
    fds = [eventfd(1) for _ in range(100)]
    pairs: list[object] = []
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET, (fd,))

    def prepare() -> Call:
        for fd in fds:
            ep.modify(fd, Event.IN | Event.ET, (fd,))
        pairs[:] = [use_up_free_pairs()]
        return lambda: ep.poll(0)

    def check(done: bool) -> None:
        pairs.clear()
        assert len(ep.poll(0)) == (0 if done else 100)

    assert failing_in_turn(prepare, check) >= len(fds)


def poll_often(ep: Epoll) -> None:
    for _ in range(10):
        ep.poll(0)


def test_a_rebuild_without_memory_is_postponed() -> None:
    """A wait without memory for the rebuild fails, or goes on without it; the next one rebuilds."""
    fd = os.eventfd(1)
    keep, live = os.dup(fd), os.eventfd(1)
    os.close(fd)
    eps: list[Epoll] = []

    def prepare() -> Call:
        eps.append(pyepoll.Epoll())
        ep = eps[0]
        stale_fd = os.dup(keep)
        ep.register(live, Event.IN, "live")
        ep.register(stale_fd, Event.IN, "stale")
        os.close(stale_fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            ep.unregister(stale_fd)
        return partial(poll_often, ep)

    def check(done: bool) -> None:
        (ep,) = eps
        for _ in range(10):
            assert ep.poll(0) == [("live", Event.IN)]
        assert [fd for fd, _, _ in fdinfo_lines(ep)] == [live]
        ep.close()
        eps.clear()

    assert failing_in_turn(prepare, check) > 0
    os.close(keep)
    os.close(live)


def test_a_failing_fromfd_leaves_the_fd_open() -> None:
    stock = select.epoll()
    number = stock.fileno()
    ep: Epoll | None = None

    def make() -> None:
        nonlocal ep
        ep = pyepoll.Epoll[Any].fromfd(number)

    def check(done: bool) -> None:
        # The new fd is kept open: it would be reused.
        assert (ep is not None) is done
        os.fstat(number)

    assert failing_in_turn(lambda: make, check) > 0
    assert ep is not None
    ep.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with contextlib.suppress(OSError):  # CPython 3.15 raises EBADF.
        stock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def stays_whole(bench: Bench, prepare: Callable[[], Call]) -> None:
    """Whatever fails half-way: no fd and no reference is lost, and kernel and object agree."""
    pairs: list[object] = []

    def references() -> int:
        pairs.clear()
        bench.reset()
        gc.collect()
        return sys.getrefcount(bench.data)

    def prepare_all() -> Call:
        pairs[:] = [use_up_free_pairs()]
        return prepare()

    def check(done: bool) -> None:
        assert references() == before
        assert sorted(open_fds().values()) == sorted(fds.values())  # a rebuild may take another fd
        # A stale registration left by a failed repair is removed later.
        until(lambda: bench.ep.poll(0) == [(bench.data, Event.IN)] and agree(bench.ep))
        assert bench.sel.select(0) == [(bench.key, EVENT_READ)]

    before, fds = references(), open_fds()
    failing_in_turn(prepare_all, check)


# Here the interpreter fails: it calls back for a collection, keeps an object that it cannot remove from the
# list of those whose repr is under way, and crashes for lack of the frames that an exception passes through,
# where there is no busy poll.
NOT_OURS = {
    "Epoll (a cycle)",
    "EpollSelector (a cycle)",
    "Registrations.__repr__",
    "Epoll.get_busy_poll",
    "Epoll.set_busy_poll",
}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - NOT_OURS))
def test_every_call_survives_failed_allocations(bench: Bench, name: str) -> None:
    CALLS[name](bench)
    stays_whole(bench, lambda: lambda: CALLS[name](bench) and None)


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_survives_failed_allocations(bench: Bench, name: str) -> None:
    """The parts of the error itself have no memory either."""

    def prepare() -> Call:
        refusal = REFUSALS[name](bench)
        return lambda: refused(*refusal)

    stays_whole(bench, prepare)


@pytest.mark.parametrize("create", [raw.epoll_create, raw.epoll_create1])
def test_a_failed_constructor_with_a_large_fd_closes_it(room: int, create: Callable[[int], int]) -> None:
    """An int above those that CPython keeps: up to 256, from 3.15 on up to 1024."""
    below = [os.dup(0) for _ in range(1025)]
    made = [-1]

    def make() -> None:
        made[0] = create(1 if create is raw.epoll_create else raw.EPOLL_CLOEXEC)

    def check(done: bool) -> None:
        assert done is (made[0] >= 0)
        if done:
            os.close(made[0])
        made[0] = -1
        assert open_fds() == before

    before = open_fds()
    try:
        assert failing_in_turn(lambda: make, check) > 0
    finally:
        for fd in (open_fds().keys() - before.keys()) | set(below):
            os.close(fd)


@pytest.mark.parametrize("first", ["fileno", "poll", "wait", "iter", "register", "unregister"])
def test_a_failed_first_use_keeps_the_childs_copy(
    ep: Epoll, fd: int, eventfd: Callable[..., int], first: str
) -> None:
    """The copy stays one that has not been used yet, or works."""
    other, data = eventfd(1), Data()
    ep.register(fd, Event.IN, data)
    calls: dict[str, Call] = {
        "fileno": ep.fileno,
        "poll": lambda: ep.poll(0),
        "wait": lambda: ep.wait(0),
        "iter": lambda: next(iter(ep)),
        "register": lambda: ep.register(other, Event.IN, data),
        "unregister": lambda: ep.unregister(fd),
    }

    def child(start: int) -> None:
        references = sys.getrefcount(data)
        done = without_memory(start, calls[first])
        if first == "register":
            assert (other in ep) is done
            assert sys.getrefcount(data) == references + done
        elif first == "unregister":
            assert (fd in ep) is not done
        assert agree(ep)
        assert dict(ep.poll(0)).get(data, 0) == (Event.IN if fd in ep or other in ep else 0)
        if not done:
            raise MemoryError

    before = fdinfo_lines(ep)
    for start in range(MOST_ALLOCATIONS):
        said = in_child(partial(child, start))
        assert fdinfo_lines(ep) == before
        if not said:
            return
        assert said.endswith("MemoryError\n"), said
    raise AssertionError("it allocates without end")
