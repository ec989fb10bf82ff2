"""Sockets that come and go at full load for a long time: no event is lost, and nothing grows.

Every other phase is untidy: connections are short, none of them is unregistered, half of the files stay open
in a duplicate, and most fds are reused at once.

PYEPOLL_SOAK is the duration in seconds.
"""

import contextlib
import ctypes
import gc
import itertools
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.effort import Effort
from support.fds import open_fds
from support.kernel import fdinfo_lines, instance_fd

import pyepoll
from pyepoll import Event

SECONDS = int(os.environ.get("PYEPOLL_SOAK", "1800"))
PAIRS = 200
KEPT = 32
"""The maximum number of files that stay open after their fd was closed."""
ALLOWED_DRIFT = 1 << 20
"""How many bytes the process may grow after it has warmed up."""

REST_AFTER_SUCCESS, REST_AFTER_FAILURE = 10, 100
"""After a repair, none is tried for so many times its duration (csrc/core/repair/repair.c)."""

MODES = [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT, Event.IN | Event.ET | Event.RDHUP]


class End:
    """One end of a connection. The two send a number to and fro, one higher each time.

    So each number needs an event, and a lost one stops the connection. The high bits of the number say which
    connection it is: an event that reached another would be seen.
    """

    __slots__ = ("buffer", "expected", "last", "mode", "one_shot", "soak", "sock")

    def __init__(self, soak: "Soak", sock: socket.socket, expected: int, last: int) -> None:
        self.soak = soak
        self.sock = sock
        self.mode = next(soak.modes)
        self.one_shot = bool(self.mode & Event.ONESHOT)
        self.expected = expected
        self.last = last
        self.buffer = soak.buffer
        sock.setblocking(False)
        soak.ep.register(sock, self.mode, self)

    def ready(self, events: Event) -> None:
        buffer = self.buffer
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            # A rebuild may report an edge once more.
            self.soak.again += 1
            if self.one_shot:
                self.soak.ep.rearm(self.sock)
            return
        except OSError:
            # Closed without unregister, and its file is still open: it is reported until that is noticed.
            assert self.sock.fileno() == -1
            self.soak.stale_events += 1
            return
        number = int.from_bytes(buffer)
        if count != 8 or number != self.expected:
            self.finish(count)
            return
        self.expected = number + 2
        if number >= self.last:
            self.soak.leave(self)
            return
        self.sock.send((number + 1).to_bytes(8))
        if self.one_shot:
            self.soak.ep.rearm(self.sock)
        elif not number & 63:
            self.soak.register_anew(self)

    def finish(self, count: int) -> None:
        """The peer has closed, after the last number."""
        assert count == 0, f"got {bytes(self.buffer[:count]).hex()}, not {self.expected:x}"
        assert self.expected > self.last, f"closed before {self.expected:x}"
        if self.soak.untidy:
            self.soak.close_untidily(self)
        else:
            self.soak.close(self)


class Soak:
    def __init__(self, ep: "pyepoll.Epoll[Any]") -> None:
        self.ep = ep
        self.buffer = bytearray(8)
        self.modes = itertools.cycle(MODES)
        self.chance = random.Random(1)
        self.ids = itertools.count(1)
        self.open: set[End] = set()
        self.kept: deque[socket.socket] = deque()
        self.waiting: dict[tuple[str, int], socket.socket] = {}
        self.server = socket.create_server(("127.0.0.1", 0), backlog=PAIRS)
        self.server.setblocking(False)
        self.made = self.again = self.stale_made = self.stale_events = self.reused = 0
        self.full = True
        self.untidy = False
        ep.register(self.server, Event.IN, self)
        for _ in range(PAIRS):
            self.connect()

    def connect(self) -> None:
        """Make a pair, or have one accepted."""
        self.made += 1
        if self.made % 8:
            self.start(*socket.socketpair())
        else:
            a = socket.socket()
            a.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                a.connect(self.server.getsockname())
            self.waiting[a.getsockname()] = a

    def ready(self, events: Event) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                b, address = self.server.accept()
                self.start(self.waiting.pop(address), b)

    def start(self, a: socket.socket, b: socket.socket) -> None:
        first = next(self.ids) << 20
        last = first + (self.chance.randrange(4, 16) if self.untidy else self.chance.randrange(32, 512))
        ends = End(self, a, first + 1, last), End(self, b, first, last)
        self.open.update(ends)
        a.send(first.to_bytes(8))

    def leave(self, end: End) -> None:
        """Let the other end see that this was the last number, in one of several ways."""
        way = self.chance.randrange(8)
        if self.untidy:
            self.close_untidily(end)
        elif way == 0:
            # Half-closed: the other end closes first.
            end.sock.shutdown(socket.SHUT_WR)
            if end.one_shot:
                self.ep.rearm(end.sock)
        elif way == 1 and len(self.kept) < KEPT:
            # A stale registration: the file stays open, and is ready when the other end has closed.
            self.stale_made += 1
            self.kept.append(end.sock.dup())
            end.sock.shutdown(socket.SHUT_WR)
            self.close(end, by_number=True)
        else:
            self.close(end)

    def close(self, end: End, by_number: bool = False) -> None:
        """Close one end, in one of several ways; the fd may be reused at once."""
        unregister = self.chance.randrange(3) > 0
        number = end.sock.fileno()
        if unregister and not by_number:
            self.ep.unregister(number)
        end.sock.close()
        if unregister and by_number:
            with contextlib.suppress(OSError):
                self.ep.unregister(number)
        self.open.remove(end)
        if self.full and len(self.open) + 2 * len(self.waiting) < 2 * PAIRS:
            self.connect()

    def close_untidily(self, end: End) -> None:
        """Close one end without unregister, its file kept open or not; another may have the fd at once."""
        number = end.sock.fileno()
        if self.chance.randrange(2):
            self.stale_made += 1
            self.kept.append(end.sock.dup())
            if len(self.kept) > KEPT:
                self.kept.popleft().close()
            with contextlib.suppress(OSError):  # The other end has closed.
                end.sock.shutdown(socket.SHUT_WR)
        end.sock.close()
        self.open.remove(end)
        if self.full and len(self.open) + 2 * len(self.waiting) < 2 * PAIRS and self.chance.randrange(4):
            self.reused += 1
            self.made += 1
            a, b = socket.socketpair()
            if b.fileno() == number:
                a, b = b, a
            elif a.fileno() != number:
                os.dup2(a.fileno(), number, inheritable=False)
                a.close()
                a = socket.socket(fileno=number)
            self.start(a, b)
        elif self.full and len(self.open) + 2 * len(self.waiting) < 2 * PAIRS:
            self.connect()

    def register_anew(self, end: End) -> None:
        self.ep.unregister(end.sock)
        self.ep.register(end.sock, end.mode, end)

    def agree(self) -> None:
        """All fds and watches are there, and no others but the stale registrations not yet removed."""
        watched = sorted(fd for fd, _, _ in fdinfo_lines(self.ep))
        expected = len(self.open) + 2
        assert expected <= len(watched) <= expected + len(self.kept)
        assert {end.sock.fileno() for end in self.open} <= set(watched)

    def fds(self) -> int:
        return len(self.open) + len(self.waiting) + len(self.kept)


def resident() -> int:
    """How much memory the process has, in bytes, when all that can be given back is."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # musl has nothing to trim.
        ctypes.CDLL(None).malloc_trim(0)
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] in ("Rss:", "Swap:"))


class Watch:
    """Checks the soak from time to time, woken by another thread: each wake-up must come."""

    def __init__(self, soak: Soak, seconds: float) -> None:
        self.soak = soak
        self.waker = pyepoll.Waker()
        self.woken = threading.Event()
        self.over = threading.Event()
        self.wakes = self.late = 0
        self.other_fds = len(open_fds()) - soak.fds()
        self.start = start = time.monotonic()
        self.phase = min(30, seconds / 5)
        self.warm = start + min(60, seconds / 4)
        self.end = start + seconds
        self.next_look = start
        self.seen: dict[End, int] = {}
        self.sizes: list[int] = []
        soak.ep.register(self.waker, Event.IN, self)
        self.thread = threading.Thread(target=self.wake)
        self.thread.start()

    def wake(self) -> None:
        while not self.over.is_set():
            self.woken.clear()
            self.waker.wake()
            self.late += not self.woken.wait(20)
            self.wakes += 1
            time.sleep(0.005)

    def ready(self, events: Event) -> None:
        self.waker.clear()
        self.woken.set()
        soak, now = self.soak, time.monotonic()
        soak.untidy = (now - self.start) // self.phase % 2 == 1
        if soak.kept and self.wakes % 8 == 0:
            soak.kept.popleft().close()
        if now >= self.next_look or now >= self.end:
            self.look(now)

    def look(self, now: float) -> None:
        soak = self.soak
        soak.agree()
        assert len(open_fds()) - soak.fds() == self.other_fds
        if now >= self.next_look:
            stalled = [end for end in soak.open if self.seen.get(end) == end.expected]
            assert not stalled, f"{len(stalled)} connections got no event: {[end.mode for end in stalled]}"
            self.seen = {end: end.expected for end in soak.open}
            self.next_look = now + 10
        if soak.full and now >= self.warm:
            self.sizes.append(resident())
        # A busy machine may take longer than the quick form for the first of these.
        if now >= self.end and soak.reused > 0 and soak.ep.stats().rebuilds > 0:
            soak.full = False

    def stop(self) -> None:
        """The last wake-up is not reported any more: do not wait for it."""
        self.over.set()
        while self.thread.is_alive():
            self.woken.set()
            self.thread.join(0.01)
        self.waker.close()


@pytest.mark.lasts(SECONDS + 60)
def test_a_server_at_full_load_loses_no_event(effort: Effort, show: Callable[[str], None]) -> None:
    seconds = effort(1, SECONDS)
    with pyepoll.Epoll[Any]() as ep:
        soak = Soak(ep)
        watch = Watch(soak, seconds)
        start = time.monotonic()
        try:
            for each, events in ep:
                each.ready(events)
                if not soak.full and not soak.open and not soak.waiting:
                    break
        finally:
            watch.stop()
            for kept in soak.kept:
                kept.close()
        took, stats = time.monotonic() - start, ep.stats()
        ep.unregister(soak.server)
        soak.server.close()
        # An fd closed without unregister is listed until it is touched.
        for fd in ep.registrations:
            with contextlib.suppress(OSError):
                ep.unregister(fd)
        assert len(ep) == 0
        assert fdinfo_lines(ep) == []
    drift = watch.sizes[-1] - watch.sizes[0]
    show(f"{stats.events} events in {took:.0f} s, {stats.events / took:.0f} a second; {stats}")
    show(f"{soak.made} connections, {watch.wakes} wake-ups, {watch.late} lost")
    show(f"{soak.stale_made} stale registrations left, {soak.stale_events} of their events seen,")
    show(f"{soak.again} events seen again")
    show(f"grown by {drift} bytes from {watch.sizes[0]}, at most to {max(watch.sizes)}")
    show(f"{soak.reused} fds reused at once")
    assert watch.late == 0
    assert effort(0, 1) == 0 or drift <= ALLOWED_DRIFT


def repair_by_hand(ep: "pyepoll.Epoll[Any]", fds: list[int]) -> float:
    """How long it takes to read the kernel's list, and to let another epoll watch these fds."""
    start = time.monotonic()
    Path(f"/proc/thread-self/fdinfo/{instance_fd(ep)}").read_bytes()
    if fds:
        with select.epoll() as other:
            for fd in fds:
                other.register(fd, select.EPOLLIN)
    return time.monotonic() - start


def repairs_of(ep: pyepoll.Epoll[Any]) -> int:
    stats = ep.stats()
    return stats.rebuilds + stats.failed_rebuilds


@pytest.mark.parametrize("foreign", [False, True], ids=["own", "foreign"])
def test_repairs_pause_in_proportion_to_their_duration(
    foreign: bool, effort: Effort, show: Callable[[str], None]
) -> None:
    """Stale registrations come faster than they can be removed, as in a program that never unregisters.

    After each repair there is a rest of so many times its duration, and more where it cannot be made, as in a
    foreign instance. So the duration of one bounds how many there are, and how often fdinfo is read.
    """
    kept: deque[int] = deque()
    idle = [os.eventfd(0) for _ in range(500)]
    stock = select.epoll()
    with pyepoll.Epoll[Any].fromfd(os.dup(stock.fileno())) if foreign else pyepoll.Epoll[Any]() as ep:
        for fd in idle:
            ep.register(fd, Event.IN)
        by_hand = min(repair_by_hand(ep, [] if foreign else idle) for _ in range(20))
        start = time.monotonic()
        # On a busy machine the first repair may take so long that the second is due only later.
        while time.monotonic() < start + effort(1, 30) or repairs_of(ep) < 2:
            fd = os.eventfd(1)
            kept.append(os.dup(fd))
            ep.register(fd, Event.IN)
            os.close(fd)
            with contextlib.suppress(OSError):
                ep.unregister(fd)
            for _ in range(4):
                assert ep.poll(0) == []
            if len(kept) > KEPT:
                os.close(kept.popleft())
        took = time.monotonic() - start
        stats = ep.stats()
    stock.close()
    for fd in (*idle, *kept):
        os.close(fd)
    repairs = stats.rebuilds + stats.failed_rebuilds
    show(f"{repairs} repairs in {took:.1f} s, one by hand in {by_hand * 1e6:.0f} us; {stats}")
    rest = REST_AFTER_FAILURE if foreign else REST_AFTER_SUCCESS
    # Half of it, for the time that Python adds. The last rest may be cut off.
    assert (repairs - 1) * (1 + rest) * by_hand / 2 <= took
