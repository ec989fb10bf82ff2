"""Many fds in one process, many watches in one kernel instance: all are served, and a wait costs no more."""

import contextlib
import os
import select
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.effort import Effort
from support.fds import Pipe
from support.kernel import fdinfo_lines
from support.processes import fork

import pyepoll
from pyepoll import Event, raw

Epoll = pyepoll.Epoll[Any]
Show = Callable[[str], None]


@pytest.fixture
def many(room: int, effort: Effort) -> Iterator[list[int]]:
    """Eventfds, all of them ready."""
    fds = [os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(min(room, effort(4000, 19_000)))]
    yield fds
    for fd in fds:
        os.close(fd)


def milliseconds(call: Callable[[], Any]) -> str:
    start = time.perf_counter()
    call()
    return f"{(time.perf_counter() - start) * 1000:.1f} ms"


def register_all(ep: Any, fds: list[int], mask: int) -> None:
    for fd in fds:
        ep.register(fd, mask)


def unregister_all(ep: Any, fds: list[int]) -> None:
    for fd in fds:
        ep.unregister(fd)


# One process.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(pyepoll.Epoll, id="pyepoll"),
        pytest.param(
            select.epoll, id="stock", marks=pytest.mark.xfail(raises=AssertionError, reason="1,023 at most")
        ),
    ],
)
@pytest.mark.parametrize(
    "mask",
    [select.EPOLLIN, select.EPOLLIN | select.EPOLLET, select.EPOLLIN | select.EPOLLONESHOT],
    ids=["level", "edge", "one-shot"],
)
def test_one_poll_reports_all(make: Any, mask: int, many: list[int]) -> None:
    with make() as ep:
        register_all(ep, many, mask)
        assert sorted(fd for fd, _ in ep.poll(0)) == many
        # No edge comes twice, no one-shot, and of level-triggered ones all.
        assert len(ep.poll(0)) == (len(many) if mask == select.EPOLLIN else 0)
        unregister_all(ep, many)
        assert ep.poll(0) == []
        assert fdinfo_lines(ep) == []


@pytest.mark.parametrize("iterate", [lambda ep: ep.wait(0), iter], ids=["wait", "endless"])
def test_one_loop_reports_all(iterate: Any, many: list[int]) -> None:
    with pyepoll.Epoll[Any]() as ep:
        register_all(ep, many, Event.IN | Event.ET)
        assert sorted(fd for fd, _ in islice(iterate(ep), len(many))) == many
        for fd in many:
            os.eventfd_write(fd, 1)
        assert sorted(fd for fd, _ in islice(iterate(ep), len(many))) == many
        assert ep.poll(0) == []


def test_events_that_a_loop_leaves_are_reported_again(many: list[int], show: Show) -> None:
    with pyepoll.Epoll[Any]() as ep:
        register_all(ep, many, Event.IN | Event.ET)
        first, _ = next(ep.wait(0))
        start = time.perf_counter()
        assert sorted(fd for fd, _ in [(first, Event.IN), *ep.poll(0)]) == many
        show(f"{len(many)} given back and polled again: {(time.perf_counter() - start) * 1000:.1f} ms")


def test_costs_at_scale_are_printed(many: list[int], show: Show) -> None:
    ep = pyepoll.Epoll[Any]()
    times = [
        f"register {milliseconds(lambda: register_all(ep, many, Event.IN))}",
        f"poll {milliseconds(lambda: ep.poll(0))}",
        f"poll again {milliseconds(lambda: ep.poll(0))}",
        f"unregister {milliseconds(lambda: unregister_all(ep, many))}",
    ]
    register_all(ep, many, Event.IN)
    times.append(f"close {milliseconds(ep.close)}")
    show(f"{len(many)} fds: {', '.join(times)}")


# One kernel instance.


def slab() -> int:
    """The kernel's own memory without caches, in bytes: of the whole machine, so the figure is rough."""
    rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] == "SUnreclaim:")


def watch_count(epfd: int) -> int:
    with open(f"/proc/self/fdinfo/{epfd}", "rb") as file:
        return sum(line.startswith(b"tfd:") for line in file)


def median_poll(ep: Epoll, expected: list[Any]) -> float:
    """Seconds of a poll that does not wait; each must return the same."""
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        events = ep.poll(0)
        times.append(time.perf_counter() - start)
        assert events == expected
    return statistics.median(times)


class Watcher:
    """A child that puts watches of its own into an epoll that it shares.

    The kernel counts by file and fd, so the duplicates of one file are as many watches.
    """

    def __init__(self, epfd: int, count: int) -> None:
        self.done, done = os.pipe()
        go, self.go = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            # Nothing of the Epoll object is used here, or it would make the child an instance of its own.
            signal.alarm(240)
            try:
                os.close(self.go)
                fd = os.eventfd(0)
                os.write(done, b"o")
                os.read(go, 1)
                for _ in range(count):
                    raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, os.dup(fd), Event.IN, 1)
                os.close(epfd)
                os.write(done, b"k")
                os.read(go, 1)
            finally:
                os._exit(0)
        os.close(done)
        os.close(go)
        assert os.read(self.done, 1) == b"o"

    def add(self) -> None:
        os.write(self.go, b"x")
        assert os.read(self.done, 1) == b"k", "a child could not add its watches"

    def end(self) -> None:
        # Closing alone would not do: the children after this one have the other end too.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.go, b"xx")
        os.close(self.go)
        os.close(self.done)
        os.waitpid(self.pid, 0)


@pytest.mark.lasts(240)
def test_a_million_watches_do_not_slow_a_registration(
    room: int, make_pipe: Callable[[], Pipe], effort: Effort, show: Show
) -> None:
    """Children that share the instance add them; a registration made here costs as before, and reports."""
    count = effort(40_000, 1_000_000)
    most = int(Path("/proc/sys/fs/epoll/max_user_watches").read_text())
    if most < count + 1000:
        pytest.skip(f"a user may have {most} watches")
    each = min(19_000, room)
    pipe, ready = make_pipe(), make_pipe()
    os.write(ready.write, b"x")
    ep = pyepoll.Epoll[Any]()
    epfd = ep._instance_fd()
    watchers: list[Watcher] = []
    try:
        ep.register(pipe.read, Event.IN, "pipe")
        idle = median_poll(ep, [])
        ep.register(ready.read, Event.IN, "ready")
        one = median_poll(ep, [("ready", Event.IN)])
        sizes = [each] * (count // each) + [count % each] * (count % each > 0)
        watchers = [Watcher(epfd, size) for size in sizes]
        before, start = slab(), time.perf_counter()
        for watcher in watchers:
            watcher.add()
        adding, memory = time.perf_counter() - start, slab() - before
        assert watch_count(epfd) == count + 2
        one_of_many = median_poll(ep, [("ready", Event.IN)])
        ep.unregister(ready.read)
        idle_of_many = median_poll(ep, [])
        os.write(pipe.write, b"x")
        assert ep.poll(10) == [("pipe", Event.IN)]
        show(
            f"{count} watches by {len(watchers)} processes: added in {adding:.1f} s;"
            f" a poll of nothing {idle * 1e6:.2f} -> {idle_of_many * 1e6:.2f} us,"
            f" of one {one * 1e6:.2f} -> {one_of_many * 1e6:.2f} us;"
            f" {memory / count:.0f} bytes of kernel memory each"
        )
        # Not a limit on speed: a cost that grew with the number of watches would be a thousand times as high.
        assert idle_of_many < 10 * idle
        assert one_of_many < 10 * one
        ending = milliseconds(watchers.pop().end)
        assert watch_count(epfd) == count + 1 - sizes[-1], "a process that ends takes its watches along"
        show(f"the end of a process with {sizes[-1]} of them: {ending}")
        assert ep.poll(10) == [("pipe", Event.IN)]
        left = count - sizes[-1]
        show(f"close with {left} watches: {milliseconds(ep.close)}")
    finally:
        ep.close()
        for watcher in watchers:
            watcher.end()
