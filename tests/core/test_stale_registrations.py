"""A closed fd with an open duplicate keeps no wait busy, and the rebuild loses no event of a live one."""

import asyncio
import contextlib
import itertools
import os
import resource
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import ANY

import pytest
from support.effort import Effort
from support.fds import Pipe, no_fd_left, open_fds
from support.kernel import IMPLIED, agree, fdinfo, fdinfo_lines, instance_fd
from support.processes import fork
from support.threads import until, waiters

import pyepoll
from pyepoll import Event, raw

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

MOST_WAITS = 10
"""How often a stale registration may wake a wait before it is removed."""


def unregister_closed(ep: Any, fd: int) -> None:
    """Unregister an fd that no longer refers to the registered file: EBADF, or ENOENT if it is reused."""
    with contextlib.suppress(OSError):
        ep.unregister(fd)


def held_by_a_child(fd: int) -> Callable[[], None]:
    """Fork a child that only keeps the fd open; return a function that ends it."""
    hold, release = os.pipe()
    child = fork()
    if child == 0:
        os.close(release)
        os.read(hold, 1)
        os._exit(0)
    os.close(hold)

    def end() -> None:
        os.close(release)
        assert os.waitpid(child, 0)[1] == 0

    return end


def held_in_flight(fd: int) -> Callable[[], None]:
    """Send the fd through a socket and do not receive it: the file is open, and no process has it."""
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [fd])

    def end() -> None:
        a.close()
        b.close()

    return end


def held_by_a_dup(fd: int) -> Callable[[], None]:
    dup = os.dup(fd)
    return lambda: os.close(dup)


HOLDS: dict[str, Callable[[int], Callable[[], None]]] = {
    "dup": held_by_a_dup,
    "fork": held_by_a_child,
    "in flight": held_in_flight,
}
every_hold = pytest.mark.parametrize("hold", HOLDS)


@pytest.fixture
def make_stale() -> Iterator[Callable[..., int]]:
    """Leave a ready stale registration in an epoll; return its fd. The file is closed at the end of the test.

    ``make_stale(ep, hold="fork")`` names the way to keep its file open; ``new_fd=fd`` gives the stale fd to a
    duplicate of that fd, and registers it; the test has to close it.
    """
    ends: list[Callable[[], None]] = []

    def make(ep: Any, unregister: bool = True, hold: str = "dup", new_fd: int | None = None) -> int:
        fd, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        ends.append(lambda: os.close(write))
        ends.append(HOLDS[hold](fd))
        ep.register(fd, Event.IN)
        os.close(fd)
        if unregister:
            unregister_closed(ep, fd)
        if new_fd is not None:
            os.dup2(new_fd, fd)
            ep.register(fd, Event.IN)
        # Only now, or a wait in another thread would have the event while it is a live one.
        os.write(write, b"x")
        return fd

    yield make
    for end in ends:
        end()


def is_repaired(ep: Epoll) -> bool:
    """Nothing is in the kernel's list that the object does not know."""
    return sorted(fd for fd, _, _ in fdinfo_lines(ep)) == sorted(ep.registrations)


def wake_ups(ep: Epoll, seconds: float = 0.2) -> int:
    """How often a wait of so many seconds woke; it must last that long and yield nothing."""
    before, start = ep.stats().waits, time.monotonic()
    assert ep.poll(seconds) == []
    assert time.monotonic() - start >= seconds
    return ep.stats().waits - before


def as_many_wait(waits: list[Any], count: int) -> Callable[[], bool]:
    return lambda: sum(not wait.done() for wait in waits) == count


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(pyepoll.Epoll, id="pyepoll"),
        pytest.param(
            select.epoll, id="stock", marks=pytest.mark.xfail(raises=AssertionError, reason="spins")
        ),
    ],
)
@pytest.mark.parametrize("reused", [False, True], ids=["number idle", "number reused"])
@pytest.mark.parametrize("unregister", [True, False], ids=["unregistered", "closed only"])
@every_hold
def test_a_stale_registration_wakes_few_waits(
    make: Any,
    unregister: bool,
    hold: str,
    reused: bool,
    make_stale: Callable[..., int],
    eventfd: Eventfd,
    effort: Effort,
    show: Callable[[str], None],
) -> None:
    """Every way to leave one; the fd may be reused, registered and idle."""
    idle = eventfd()
    with make() as ep:
        number = make_stale(ep, unregister, hold, idle if reused else None)
        milliseconds = effort(40, 200)
        returns, end = 0, time.monotonic() + milliseconds / 1000
        while (left := end - time.monotonic()) > 0:
            ep.poll(left)
            returns += 1
        # Events that pyepoll drops do not end its wait, so its wake-ups are counted separately.
        woken = ep.stats().waits if isinstance(ep, pyepoll.Epoll) else returns
        show(f"{woken} wake-ups in {milliseconds} ms")
        try:
            assert woken <= MOST_WAITS
            assert list(fdinfo(ep)) == [number] * reused
            os.eventfd_write(idle, 1)
            assert ep.poll(0) == [(number, Event.IN)] * reused
        finally:
            if reused:
                os.close(number)


def test_a_registration_left_by_dup_is_removed(ep: Epoll, make_stale: Callable[..., int]) -> None:
    make_stale(ep)
    number = ep.fileno()
    assert wake_ups(ep) <= MOST_WAITS
    assert fdinfo(ep) == {}
    assert ep.stats().rebuilds == 1
    assert 1 <= ep.stats().stale_events <= MOST_WAITS
    assert ep.fileno() == number
    assert wake_ups(ep) == 1


@pytest.mark.parametrize("waits", [lambda ep: ep.poll(0), lambda ep: list(ep.wait(0))], ids=["poll", "wait"])
def test_waits_with_timeout_zero_rebuild_too(
    ep: Epoll, make_stale: Any, waits: Callable[[Epoll], Any]
) -> None:
    make_stale(ep)
    for _ in range(MOST_WAITS):
        assert waits(ep) == []
    assert is_repaired(ep)


def test_endless_iteration_rebuilds(ep: Epoll, make_stale: Any, eventfd: Eventfd) -> None:
    make_stale(ep)
    live = eventfd(1)
    ep.register(live, Event.IN)
    events = iter(ep)
    for _ in range(3 * MOST_WAITS):
        assert next(events) == (live, Event.IN)
    assert is_repaired(ep)


def test_a_registration_left_by_fork_is_removed(ep: Epoll) -> None:
    """The parent closes an fd that a child has open: an accepted connection handed to a worker."""
    a, b = socket.socketpair()
    end = held_by_a_child(a.fileno())
    with b:
        number = a.fileno()
        # Level-triggered and always ready to write.
        ep.register(a, Event.OUT)
        a.close()
        unregister_closed(ep, number)
        assert wake_ups(ep) <= MOST_WAITS
        assert is_repaired(ep)
    end()


def reused_for_an_older_file(ep: Epoll, first: int, mask: Event, second: int) -> int:
    """An fd registered for one file and then for another, both stale, that refers to the first one again."""
    number = os.dup(first)
    ep.register(number, mask, "first")
    os.close(number)
    unregister_closed(ep, number)
    assert os.dup2(second, number) == number
    ep.register(number, Event.IN, "second")
    os.close(number)  # Without unregister.
    assert os.dup2(first, number) == number
    return number


def test_registrations_of_an_fd_reused_for_an_older_stale_file_are_removed(
    ep: Epoll, eventfd: Callable[..., int]
) -> None:
    """The kernel has two entries of one fd, and finds the present file by the older one."""
    first, second = eventfd(), eventfd()
    try:
        pyepoll._epoll._same_file(os.getpid(), first, os.getpid(), second)
    except OSError as error:
        pytest.skip(f"nothing tells the files apart: {error}")
    number = reused_for_an_older_file(ep, first, Event.OUT, second)
    os.eventfd_write(first, 1)
    assert [ep.poll(0.001) for _ in range(20)] == [[]] * 20
    assert is_repaired(ep)
    assert fdinfo(ep) == {}
    assert number not in ep.registrations
    os.close(number)


@pytest.mark.parametrize("how", ["modify", "rearm"])
def test_changing_an_older_stale_registration_keeps_the_fd_watched(
    ep: Epoll, eventfd: Callable[..., int], how: str
) -> None:
    """The kernel changes the older entry, of the present file of the fd: the other entry is stale."""
    first, second = eventfd(), eventfd()
    number = reused_for_an_older_file(ep, first, Event.IN, second)
    if how == "modify":
        ep.modify(number, Event.IN, "now")
    else:
        ep.rearm(number)
    os.eventfd_write(second, 1)
    assert [ep.poll(0.001) for _ in range(20)] == [[]] * 20
    assert is_repaired(ep)
    os.eventfd_write(first, 1)
    assert ep.poll(0) == [("now" if how == "modify" else "second", Event.IN)]
    assert fdinfo_lines(ep) == [(number, Event.IN | IMPLIED, ANY)]
    os.close(number)


@pytest.mark.parametrize("how", ["modify", "rearm"])
def test_a_refused_change_of_an_older_stale_registration_changes_nothing(
    ep: Epoll, eventfd: Callable[..., int], how: str
) -> None:
    """The kernel refuses for the sake of the older entry, which has EXCLUSIVE: all stays as it was."""
    first, second = eventfd(), eventfd()
    number = reused_for_an_older_file(ep, first, Event.IN | Event.EXCLUSIVE, second)
    change = partial(ep.modify, number, Event.OUT, "now") if how == "modify" else partial(ep.rearm, number)
    with pytest.raises(OSError, match="EXCLUSIVE"):
        change()
    assert ep.registrations == {number: (Event.IN, "second")}
    os.eventfd_write(first, 1)
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)
    os.close(number)


@pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT])
def test_changes_beside_stale_registrations_lose_no_event(
    ep: Epoll, eventfd: Callable[..., int], mask: Event
) -> None:
    """Events fetched before the change are reported again: none is lost, or taken for a stale one."""
    silent = eventfd()
    stale_fd = os.dup(silent)
    ep.register(stale_fd, Event.IN, "stale")
    os.close(stale_fd)
    unregister_closed(ep, stale_fd)
    fds = [eventfd(1), eventfd(1)]
    for fd in fds:
        ep.register(fd, mask, fd)
    with pytest.raises(OSError, match="EXCLUSIVE"):
        ep.modify(fds[0], Event.IN | Event.EXCLUSIVE)
    assert ep.registrations[fds[0]] == (mask, fds[0])
    changes: list[Callable[[int], None]] = [lambda fd: ep.modify(fd, mask), ep.rearm]
    for change in changes * 10:
        events = ep.wait(0)
        first, _ = next(events)
        (second,) = set(fds) - {first}
        change(second)
        assert (second, Event.IN) in list(events) + ep.poll(0)
        change(second)
        change(first)
    assert sorted(ep.poll(0)) == [(fd, Event.IN) for fd in sorted(fds)]
    os.eventfd_write(silent, 1)
    if mask == Event.IN:
        for fd in fds:
            os.eventfd_read(fd)
    elif mask & Event.ET:
        assert sorted(ep.poll(0)) == [(fd, Event.IN) for fd in sorted(fds)], (
            "a rebuild may report an edge again"
        )
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)
    assert sorted(ep.registrations) == sorted(fds)


def test_a_reused_fd_is_kept_apart_from_its_stale_registration(
    ep: Epoll, make_pipe: Callable[[], Pipe], make_stale: Any
) -> None:
    """Two entries of one fd in the kernel's list."""
    pipe = make_pipe()
    number = make_stale(ep)
    os.dup2(pipe.read, number)
    ep.register(number, Event.IN, "new")
    assert [fd for fd, _, _ in fdinfo_lines(ep)] == [number] * 2
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)
    os.write(pipe.write, b"x")
    assert ep.poll(1) == [("new", Event.IN)]
    os.close(number)


def test_an_fd_registered_again_without_unregister_is_reported(
    ep: Epoll, make_pipe: Callable[[], Pipe], make_stale: Any
) -> None:
    pipe = make_pipe()
    number = make_stale(ep, unregister=False)
    os.dup2(pipe.read, number)
    ep.register(number, Event.IN, "new")
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)
    os.write(pipe.write, b"x")
    assert ep.poll(1) == [("new", Event.IN)]
    os.close(number)


def test_an_unrelated_fd_is_not_watched_after_a_rebuild(
    ep: Epoll, make_pipe: Callable[[], Pipe], make_stale: Any
) -> None:
    """The fd is open again, and not registered: the rebuild must not begin to watch it."""
    pipe = make_pipe()
    number = make_stale(ep)
    os.write(pipe.write, b"x")
    os.dup2(pipe.read, number)
    assert wake_ups(ep) <= MOST_WAITS
    assert fdinfo(ep) == {}
    assert os.read(number, 1) == b"x"
    os.close(number)


def test_a_duplicate_back_under_its_fd_allows_deletion(ep: Epoll) -> None:
    """Then EPOLL_CTL_DEL removes it, and no instance is built."""
    fd = os.eventfd(1)
    keep = os.dup(fd)
    ep.register(fd, Event.IN)
    os.close(fd)
    unregister_closed(ep, fd)
    os.dup2(keep, fd)
    assert wake_ups(ep) <= MOST_WAITS
    assert fdinfo(ep) == {}
    os.close(fd)
    os.close(keep)


def test_modify_of_a_closed_fd_drops_the_registration(ep: Epoll, make_stale: Any) -> None:
    number = make_stale(ep, unregister=False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ep.modify(number, Event.IN)
    assert number not in ep
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)


def test_a_closed_fd_is_reported_until_a_check_drops_it(ep: Epoll, make_stale: Any, eventfd: Eventfd) -> None:
    """Its events are handed out until the first check finds the fd closed."""
    number = make_stale(ep, unregister=False)
    seen = 0
    for _ in range(3 * MOST_WAITS):
        seen += len(ep.poll(0))
    assert seen < MOST_WAITS
    assert number not in ep
    assert is_repaired(ep)
    assert ep.stats().lost_registrations == 1
    assert wake_ups(ep) == 1


def test_a_poll_that_finds_an_fd_closed_continues(ep: Epoll, make_stale: Any) -> None:
    make_stale(ep, unregister=False)
    for _ in range(MOST_WAITS):
        start = time.monotonic()
        if not ep.poll(0.1):
            assert time.monotonic() - start >= 0.1
            break
    assert is_repaired(ep)


def test_an_fd_is_checked_at_least_every_1024_events(ep: Epoll, eventfd: Eventfd) -> None:
    """It comes after 8, 16, 32, … events, and never later than after 1,024."""
    fd = os.eventfd(1)
    keep = os.dup(fd)
    ep.register(fd, Event.IN)
    for _ in range(5000):
        assert ep.poll(0) == [(fd, Event.IN)]
    os.close(fd)
    seen = 0
    while fd in ep:
        seen += len(ep.poll(0))
        assert seen <= 1024
    os.close(keep)


@every_hold
def test_live_registrations_are_untouched(
    ep: Epoll, make_pipe: Callable[[], Pipe], make_stale: Any, hold: str
) -> None:
    pipes = [make_pipe() for _ in range(6)]
    masks = [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT, Event.IN | Event.EXCLUSIVE, Event(0)]
    data = [object() for _ in masks]
    for pipe, mask, each in zip(pipes, masks, data, strict=False):
        ep.register(pipe.read, mask, each)
    ep.register(pipes[5].write, Event.OUT | Event.ONESHOT, "fired")
    assert ep.poll(0) == [("fired", Event.OUT)]
    before = fdinfo_lines(ep)
    number = ep.fileno()
    make_stale(ep, hold=hold)
    assert wake_ups(ep) <= MOST_WAITS
    assert ep.fileno() == number
    # A fired one-shot asks for nothing; the kernel adds ERR and HUP, as to every mask.
    assert sorted((fd, events | IMPLIED, word) for fd, events, word in before) == sorted(
        (fd, events | IMPLIED, word) for fd, events, word in fdinfo_lines(ep)
    )
    assert [ep.registrations[pipe.read] for pipe in pipes[:5]] == list(zip(masks, data, strict=True))
    assert ep.poll(0) == [], "the fired one-shot is still disarmed"
    for pipe in pipes[:5]:
        os.write(pipe.write, b"x")
    assert {id(data) for data, _ in ep.poll(1)} == {id(each) for each in data[:4]}
    assert {id(data) for data, _ in ep.poll(0)} == {id(data[0]), id(data[3])}, "edge and one-shot came once"
    ep.modify(pipes[5].write, Event.OUT | Event.ONESHOT)
    assert ("fired", Event.OUT) in ep.poll(0)


def test_a_fired_one_shot_stays_silent_when_its_peer_hangs_up(ep: Epoll, make_stale: Any) -> None:
    """The kernel adds ERR and HUP to its mask in the new instance."""
    pipe = Pipe()
    os.write(pipe.write, b"x")
    ep.register(pipe.read, Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(pipe.read, Event.IN)]
    make_stale(ep)
    assert wake_ups(ep) <= MOST_WAITS
    pipe.close(pipe.write)
    for _ in range(5):
        assert ep.poll(0) == []
    ep.rearm(pipe.read)
    assert ep.poll(0) == [(pipe.read, Event.IN | Event.HUP)]
    pipe.close()


def test_a_fired_one_shot_does_not_end_a_wait(ep: Epoll, make_stale: Any) -> None:
    pipe = Pipe()
    os.write(pipe.write, b"x")
    ep.register(pipe.read, Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(pipe.read, Event.IN)]
    make_stale(ep)
    wake_ups(ep)
    assert ep.stats().rebuilds == 1
    pipe.close(pipe.write)
    wake_ups(ep)
    pipe.close()


def test_a_fired_one_shot_stays_disarmed_through_rebuilds(
    ep: Epoll, eventfd: Eventfd, make_stale: Any
) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(fd, Event.IN)]
    for rebuilds in range(1, 4):
        make_stale(ep)
        wake_ups(ep, 0.05)
        assert ep.stats().rebuilds == rebuilds
    ep.rearm(fd)
    assert ep.poll(0) == [(fd, Event.IN)]


@pytest.mark.parametrize("mask", [Event.IN | Event.ET, Event.IN | Event.ONESHOT], ids=str)
@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "handed out"])
def test_a_batch_in_use_survives_a_rebuild(
    ep: Epoll, eventfd: Eventfd, make_stale: Any, mask: Event, dropped: bool
) -> None:
    fds = [eventfd(1) for _ in range(2)]
    for fd in fds:
        ep.register(fd, mask)
    events = ep.wait(0)
    seen = [next(events)[0]]
    make_stale(ep)
    for _ in range(MOST_WAITS):
        # A new instance reports an edge again.
        seen += [data for data, _ in ep.poll(0)]
    assert is_repaired(ep)
    if not dropped:
        seen += [data for data, _ in events]
    del events
    seen += [data for data, _ in ep.poll(0)]
    assert set(seen) == set(fds)
    if mask & Event.ONESHOT:
        assert sorted(seen) == fds, "each once"


def test_events_ready_during_a_rebuild_are_reported(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    """Edges and one-shots that are ready during the rebuild are reported after it."""
    fds = [eventfd(1) for _ in range(20)]
    for i, fd in enumerate(fds):
        ep.register(fd, Event.IN | (Event.ET if i % 2 else Event.ONESHOT))
    make_stale(ep)
    seen: set[int] = set()
    for _ in range(3 * MOST_WAITS + len(fds)):
        seen.update(data for data, _ in ep.poll(0, maxevents=1))
    assert seen == set(fds)
    assert is_repaired(ep)


@every_hold
def test_other_waiters_wait_on_the_new_instance(
    ep: Epoll, eventfd: Eventfd, make_stale: Any, pool: ThreadPoolExecutor, hold: str
) -> None:
    live = eventfd()
    ep.register(live, Event.IN | Event.ONESHOT)
    waits = [pool.submit(ep.poll, 5 if i % 2 else None) for i in range(6)]
    until(lambda: waiters() == 6)
    make_stale(ep, hold=hold)
    until(lambda: ep.stats().rebuilds == 1 and is_repaired(ep))
    until(lambda: waiters() == 6)
    for remaining in range(5, -1, -1):
        os.eventfd_write(live, 1)
        until(as_many_wait(waits, remaining))
        os.eventfd_read(live)
        ep.rearm(live)
    assert [wait.result() for wait in waits] == [[(live, Event.IN)]] * 6


def test_several_stale_registrations_are_one_rebuild(ep: Epoll, make_stale: Any) -> None:
    for _ in range(50):
        make_stale(ep)
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(ep)
    assert ep.stats().rebuilds == 1


def test_repeated_rebuilds_keep_live_registrations(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd(1)
    ep.register(live, Event.IN)
    number = ep.fileno()
    for rebuilds in range(1, 6):
        make_stale(ep)
        while ep.stats().rebuilds < rebuilds:  # not at once: repairs take a bounded part of the time
            assert ep.poll(0) == [(live, Event.IN)]
        assert ep.stats().rebuilds == rebuilds
        assert agree(ep)
    assert ep.fileno() == number


def test_close_on_exec_is_kept(ep: Epoll, make_stale: Any) -> None:
    for inheritable in (True, False):
        os.set_inheritable(ep.fileno(), inheritable)
        make_stale(ep)
        assert wake_ups(ep) <= MOST_WAITS
        assert is_repaired(ep)
        assert os.get_inheritable(ep.fileno()) is inheritable


# Traffic during rebuilds.


class Traffic:
    """Numbered messages through pipes: each must arrive exactly once, at its own reader."""

    def __init__(self, ep: Epoll, pipes: list[Pipe]) -> None:
        self.ep = ep
        self.enough = threading.Event()
        modes = itertools.cycle([Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT])
        self.modes = dict(zip([pipe.read for pipe in pipes], modes, strict=False))
        self.writers = {pipe.read: pipe.write for pipe in pipes}
        self.locks = {fd: threading.Lock() for fd in self.modes}
        self.written = dict.fromkeys(self.modes, 0)
        self.read = dict.fromkeys(self.modes, 0)
        for fd, mode in self.modes.items():
            ep.register(fd, mode)

    def write(self) -> None:
        while not self.enough.is_set():
            for fd, write in self.writers.items():
                with contextlib.suppress(BlockingIOError):
                    os.write(write, self.written[fd].to_bytes(8))
                    self.written[fd] += 1
            time.sleep(0.0001)

    def read_all(self, fd: int) -> None:
        with self.locks[fd]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    assert int.from_bytes(os.read(fd, 8)) == self.read[fd]
                    self.read[fd] += 1
            if self.modes[fd] & Event.ONESHOT:
                self.ep.rearm(fd)

    def serve(self, iterate: Callable[[Epoll], Iterator[tuple[int, Event]]]) -> None:
        # A call under way when the epoll is closed raises its error.
        with contextlib.suppress(ValueError):
            while not self.ep.closed:
                for fd, _ in iterate(self.ep):
                    assert fd != -1, "a disarmed one-shot fired"
                    if fd in self.modes:
                        self.read_all(fd)


def keep_registering(ep: Epoll, done: threading.Event) -> None:
    """Registrations that come and go, and the agreement that they must have with the kernel."""
    fds = [os.eventfd(1) for _ in range(4)]
    while not done.is_set():
        for fd in fds:
            ep.register(fd, Event.IN | Event.ET)
            ep.modify(fd, Event.IN | Event.ONESHOT)
        for fd in fds:
            ep.unregister(fd)
    for fd in fds:
        os.close(fd)


def keep_closing(ep: Epoll, done: threading.Event) -> None:
    """Files closed without unregister, and their fds registered again."""
    while not done.is_set():
        for _ in range(4):
            fd = os.eventfd(1)
            ep.register(fd, Event.IN)
            os.close(fd)
        time.sleep(0.0001)


def keep_forking(done: threading.Event) -> None:
    while not done.is_set():
        child = fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.001)


@pytest.mark.lasts(300)
@pytest.mark.parametrize("iterate", [lambda ep: ep.wait(0.1), iter], ids=["wait", "endless"])
@pytest.mark.parametrize("attack", [False, True], ids=["in peace", "under attack"])
def test_rebuilds_lose_no_message(
    ep: Epoll,
    iterate: Any,
    attack: bool,
    make_pipe: Callable[[], Pipe],
    make_stale: Any,
    effort: Effort,
    show: Callable[[str], None],
    pool: ThreadPoolExecutor,
) -> None:
    """Repeated rebuilds while pipes are written and read; in the attack, threads register and fork too."""
    fired = make_pipe()
    ep.register(fired.write, Event.OUT | Event.ONESHOT, -1)
    assert ep.poll(0) == [(-1, Event.OUT)]
    number = ep.fileno()
    traffic = Traffic(ep, [make_pipe() for _ in range(24)])
    served = [pool.submit(traffic.serve, iterate) for _ in range(3)]
    threads = [pool.submit(traffic.write)]
    if attack:
        threads += [pool.submit(keep, ep, traffic.enough) for keep in (keep_registering, keep_closing)]
        threads.append(pool.submit(keep_forking, traffic.enough))
    try:
        for _ in range(effort(30, 1500)):
            rebuilds = ep.stats().rebuilds
            make_stale(ep)
            until(lambda: ep.stats().rebuilds > rebuilds, 20)  # noqa: B023
    finally:
        traffic.enough.set()
        for thread in threads:
            thread.result()
    until(lambda: traffic.read == traffic.written)
    assert ep.fileno() == number
    stats = ep.stats()
    ep.close()
    for thread in served:
        thread.result()
    show(f"{sum(traffic.read.values())} messages, 0 lost; {stats}")


@pytest.mark.parametrize("waiting", [1, 4])
def test_a_long_interest_list_is_rebuilt(
    room: int,
    waiting: int,
    eventfd: Eventfd,
    make_stale: Any,
    effort: Effort,
    show: Callable[[str], None],
    pool: ThreadPoolExecutor,
) -> None:
    fds = [eventfd(i % 3 == 2) for i in range(min(effort(3000, 18_000), room))]
    masks = [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT]
    with pyepoll.Epoll[Any]() as ep:
        for fd, mask in zip(fds, itertools.cycle(masks), strict=False):
            ep.register(fd, mask)
        assert len(ep.poll(0)) == len(fds) // 3, "every third is a one-shot, and disarmed"
        waits = [pool.submit(ep.poll, 60) for _ in range(waiting)]
        until(lambda: waiters() == waiting)
        start = time.monotonic()
        make_stale(ep)
        until(lambda: ep.stats().rebuilds == 1)
        show(f"{len(fds)} registrations, {waiting} waiting: {(time.monotonic() - start) * 1000:.0f} ms")
        until(lambda: waiters() == waiting)
        assert is_repaired(ep)
        # Level-triggered, so it ends every wait; the disarmed ones report nothing.
        os.eventfd_write(fds[0], 1)
        assert [wait.result() for wait in waits] == [[(fds[0], Event.IN)]] * waiting
        assert ep.poll(0) == [(fds[0], Event.IN)]


# The watchers of this epoll.


@pytest.mark.parametrize("outer_type", [pyepoll.Epoll, select.epoll])
@pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET])
def test_an_outer_epoll_keeps_its_registration_through_a_rebuild(
    ep: Epoll, eventfd: Eventfd, make_stale: Any, outer_type: Any, mask: int
) -> None:
    live = eventfd()
    ep.register(live, Event.IN)
    with outer_type() as outer:
        outer.register(ep.fileno(), int(mask))
        before = fdinfo(outer)
        make_stale(ep)
        assert wake_ups(ep) <= MOST_WAITS
        assert is_repaired(ep)
        assert fdinfo(outer) == before
        outer.poll(0)
        os.eventfd_write(live, 1)
        assert outer.poll(1) == [(ep.fileno(), select.EPOLLIN)]
        assert ep.poll(0) == [(live, Event.IN)]


def test_a_fired_nested_one_shot_stays_disarmed(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd(1)
    ep.register(live, Event.IN)
    with pyepoll.Epoll[Any]() as outer:
        outer.register(ep, Event.IN | Event.ONESHOT, "inner")
        assert outer.poll(0) == [("inner", Event.IN)]
        make_stale(ep)
        for _ in range(MOST_WAITS):
            ep.poll(0)
        assert is_repaired(ep)
        assert outer.poll(0) == []
        outer.rearm(ep)
        assert outer.poll(0) == [("inner", Event.IN)]


def test_a_rebuild_is_invisible_to_asyncio(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd()
    ep.register(live, Event.IN)
    seen: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(ep.fileno(), lambda: seen.extend(ep.poll(0)))
        make_stale(ep)
        async with asyncio.timeout(10):
            while not ep.stats().rebuilds:
                await asyncio.sleep(0.001)
            os.eventfd_write(live, 1)
            while not seen:
                await asyncio.sleep(0.001)
        loop.remove_reader(ep.fileno())

    asyncio.run(main())
    assert set(seen) == {(live, Event.IN)}


def test_a_rebuild_is_invisible_to_a_selector(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd()
    ep.register(live, Event.IN)
    with selectors.DefaultSelector() as selector:
        key = selector.register(ep, selectors.EVENT_READ, "inner")
        make_stale(ep)
        assert wake_ups(ep) <= MOST_WAITS
        assert is_repaired(ep)
        selector.select(0)
        assert selector.select(0) == []
        os.eventfd_write(live, 1)
        assert selector.select(1) == [(key, selectors.EVENT_READ)]
        assert ep.poll(0) == [(live, Event.IN)]


@pytest.mark.parametrize("outer_type", [pyepoll.Epoll, select.epoll])
@pytest.mark.parametrize("mask", [Event.IN, Event.IN | Event.ET])
def test_a_rebuild_is_invisible_to_waiters_of_an_outer_epoll(
    ep: Epoll, eventfd: Eventfd, make_stale: Any, pool: ThreadPoolExecutor, outer_type: Any, mask: int
) -> None:
    """The rebuild moves the inner epoll while the waiters of the outer one sleep."""
    live, stop = eventfd(), eventfd()
    ep.register(live, Event.IN)
    seen: list[Any] = []

    def serve(outer: Any) -> int:
        turns = 0
        while (stop, select.EPOLLIN) not in outer.poll(10):
            turns += 1
            seen.extend(ep.poll(0))
        return turns

    with outer_type() as outer:
        outer.register(ep.fileno(), int(mask))
        outer.register(stop, select.EPOLLIN)
        before = fdinfo(outer)
        serving = [pool.submit(serve, outer) for _ in range(2)]
        until(lambda: waiters() == 2)
        for rebuilds in range(1, 4):
            make_stale(ep)
            # After an edge, a program does not poll until the next one; here the test does.
            until(lambda: ep.poll(0) == [] and ep.stats().rebuilds == rebuilds and is_repaired(ep))  # noqa: B023
            until(lambda: waiters() == 2)
            assert fdinfo(outer) == before
            seen.clear()
            os.eventfd_write(live, 1)
            until(lambda: (live, Event.IN) in seen)
            os.eventfd_read(live)
        os.eventfd_write(stop, 1)
        for each in serving:
            # Each event of the live fd may come any number of times; no stale event may.
            each.result()


def test_a_rebuilt_outer_epoll_keeps_the_inner(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd()
    with pyepoll.Epoll[Any]() as inner:
        inner.register(live, Event.IN)
        ep.register(inner, Event.IN, "inner")
        make_stale(ep)
        assert wake_ups(ep) <= MOST_WAITS
        assert is_repaired(ep)
        os.eventfd_write(live, 1)
        assert ep.poll(1) == [("inner", Event.IN)]


def test_fromfd_shares_the_rebuild(ep: Epoll, eventfd: Eventfd, make_stale: Any) -> None:
    live = eventfd()
    other = pyepoll.Epoll[Any].fromfd(ep.fileno())
    other.register(live, Event.IN, "live")
    make_stale(other)
    assert wake_ups(ep) <= MOST_WAITS
    assert is_repaired(other)
    os.eventfd_write(live, 1)
    assert ep.poll(1) == other.poll(1) == [("live", Event.IN)]
    assert other.stats() == ep.stats()


def test_a_foreign_instance_is_never_rebuilt(make_stale: Any, eventfd: Eventfd) -> None:
    live = eventfd()
    with select.epoll() as stock:
        stock.register(live, select.EPOLLIN)
        other = pyepoll.Epoll[Any].fromfd(stock.fileno())
        with select.epoll.fromfd(os.dup(stock.fileno())) as same:
            make_stale(other)
            for _ in range(3 * MOST_WAITS):
                other.poll(0)
            os.eventfd_write(live, 1)
            assert (live, select.EPOLLIN) in same.poll(0), "still the same instance"


# A fork during a rebuild.


def epolls() -> list[int]:
    return [fd for fd, what in open_fds().items() if what == "anon_inode:[eventpoll]"]


@pytest.mark.lasts(60)
def test_a_fork_during_a_rebuild_gives_the_child_one_instance(
    room: int, ep: Epoll, eventfd: Eventfd, make_stale: Any, effort: Effort, show: Callable[[str], None]
) -> None:
    """The child has the one instance, and a disarmed one-shot is disarmed there."""
    fds = [eventfd(1) for _ in range(min(effort(2000, 4000), room))]
    for fd in fds:
        ep.register(fd, Event.IN | Event.ONESHOT)
    assert len(ep.poll(0)) == len(fds)
    before = epolls()
    verdicts: dict[str, int] = {}

    def child(report: int) -> None:
        try:
            found = [f"{len(epolls()) - len(before)} epolls too many"] if epolls() != before else []
            if came := len(ep.poll(0)):
                found.append(f"{came} disarmed ones came")
            os.write(report, (", ".join(found) or "well").encode())
        finally:
            os._exit(0)

    def poll_until(rebuilds: int) -> list[tuple[Any, Event]]:
        events: list[tuple[Any, Event]] = []
        while ep.stats().rebuilds < rebuilds:
            events += ep.poll(0.05)
        return events

    with ThreadPoolExecutor(1) as thread:
        for round in range(effort(8, 100)):
            rebuilds = ep.stats().rebuilds
            make_stale(ep)
            rebuilding = thread.submit(poll_until, rebuilds + 1)
            time.sleep(round % 16 / 1000)
            while ep.stats().rebuilds == rebuilds:
                read, write = os.pipe()
                if (pid := fork()) == 0:
                    child(write)
                os.close(write)
                with open(read) as file:
                    verdict = file.read() or "died"
                os.waitpid(pid, 0)
                verdicts[verdict] = verdicts.get(verdict, 0) + 1
            assert rebuilding.result() == []
    show(f"of the children {verdicts}")
    assert set(verdicts) == {"well"}


def test_a_childs_first_use_after_a_rebuild_keeps_one_shots_disarmed(
    ep: Epoll, eventfd: Eventfd, make_stale: Any
) -> None:
    """A one-shot disarmed at the fork is disarmed in the child, whether it rebuilds or not."""
    fd = eventfd(1)
    ep.register(fd, Event.IN | Event.ONESHOT)
    assert ep.poll(0) == [(fd, Event.IN)]
    make_stale(ep)
    hold, release = os.pipe()
    if (child := fork()) == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.read(hold, 1)
            assert ep.poll(0) == []
            ep.rearm(fd)
            assert ep.poll(0) == [(fd, Event.IN)]
            status = 0
        os._exit(status)
    wake_ups(ep, 0.05)
    assert is_repaired(ep)
    os.write(release, b"x")
    status = os.waitpid(child, 0)[1]
    os.close(hold)
    os.close(release)
    assert status == 0


# No fd left.


def test_a_rebuild_without_free_fds_neither_spins_nor_loses_events(
    ep: Epoll, make_stale: Any, eventfd: Eventfd
) -> None:
    live = eventfd()
    ep.register(live, Event.IN)
    make_stale(ep)
    with no_fd_left():
        used, start = time.process_time(), time.monotonic()
        assert ep.poll(0.5) == []
        assert time.monotonic() - start >= 0.5
        assert time.process_time() - used < 0.4, "it spins"
        os.eventfd_write(live, 1)
        assert ep.poll(5) == [(live, Event.IN)]
        os.eventfd_read(live)
    assert wake_ups(ep) <= 2 * MOST_WAITS
    # A failed repair is tried again after 100 times its duration, which is long on a busy machine.
    until(lambda: ep.poll(0) == [] and is_repaired(ep))
    os.eventfd_write(live, 1)
    assert ep.poll(5) == [(live, Event.IN)]


def test_a_rebuild_with_one_fd_left_keeps_the_outer(ep: Epoll, make_stale: Any, eventfd: Eventfd) -> None:
    ep.register(eventfd(), Event.IN)
    with select.epoll() as outer:
        outer.register(ep.fileno(), select.EPOLLIN)
        before = fdinfo(outer)
        make_stale(ep)
        with no_fd_left(spare=1):
            wake_ups(ep)
        wake_ups(ep)
        assert is_repaired(ep)
        assert fdinfo(outer) == before


def test_a_limit_below_the_fd_postpones_the_rebuild(eventfd: Eventfd, make_stale: Any) -> None:
    """Then the kernel refuses to put the new instance in the old one's place."""
    held = [os.dup(0) for _ in range(40)]
    with pyepoll.Epoll[Any]() as ep:
        for each in held:
            os.close(each)
        live = eventfd()
        ep.register(live, Event.IN)
        make_stale(ep)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ep.fileno(), limits[1]))
        try:
            wake_ups(ep)
            os.eventfd_write(live, 1)
            assert ep.poll(5) == [(live, Event.IN)]
            os.eventfd_read(live)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert wake_ups(ep) <= 2 * MOST_WAITS
        assert is_repaired(ep)
        os.eventfd_write(live, 1)
        assert ep.poll(5) == [(live, Event.IN)]


@pytest.mark.parametrize("how", ["no fd for a rebuild", "registered by others"])
def test_signals_are_handled_between_stale_events(
    ep: Epoll, make_stale: Any, eventfd: Eventfd, how: str
) -> None:
    if how == "registered by others":
        raw.epoll_ctl(instance_fd(ep), raw.EPOLL_CTL_ADD, eventfd(1), Event.IN, 77)
    else:
        make_stale(ep)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        ep.poll(20)

    before, start = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    try:
        with no_fd_left(), pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 15


def test_a_stale_registration_of_others_does_not_spin(ep: Epoll, eventfd: Eventfd) -> None:
    raw.epoll_ctl(instance_fd(ep), raw.EPOLL_CTL_ADD, eventfd(1), Event.IN, 77)
    assert wake_ups(ep) <= MOST_WAITS
