"""A random walk over everything an Epoll does; after each step the kernel and a plain model agree with it.

Three Epolls nest in each other, and a select.epoll watches the lower two beside them:

    top      -> middle, bottom, files
    stock    -> middle, bottom
    middle   -> bottom, a duplicate of it, files
    bottom   -> files, a waker

That is as deep as Epolls nest: each but the top one has a front, and the kernel allows five above each other.
The model knows which levels are ready, and the events that each must and may report.
"""

import errno
import itertools
import os
import select
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.effort import Effort
from support.kernel import IMPLIED, fdinfo_lines, instance_fd
from support.processes import SANITIZED, in_child
from support.thirds import thirds

import pyepoll
from pyepoll import Event

FILES = 4
"""eventfds for the walks, each with an fd of its own far above all others."""
FIRST = 500
DUPLICATE = FIRST + FILES
"""The fd that is at times a duplicate of a nested epoll."""
PATHS = 10
"""In so many ways the kernel lets one file wake the fifth epoll above it (path_limits in fs/eventpoll.c)."""

BOTTOM, MIDDLE, TOP = range(3)

numbers = st.integers(0, FILES - 1).map(lambda n: FIRST + n)
masks = st.sampled_from(
    [
        Event.IN,
        Event.OUT,
        Event.IN | Event.OUT,
        Event(0),
        Event.IN | Event.ET,
        Event.IN | Event.OUT | Event.ET,
        Event.IN | Event.ONESHOT,
        Event.OUT | Event.ONESHOT,
        Event.IN | Event.EXCLUSIVE,
    ]
)
ways = st.sampled_from(["poll", "wait", "iterate", "one", "drop"])
counts = st.integers(1, 3)
picks = st.integers(0, 100)
ranks = st.sampled_from([BOTTOM, MIDDLE, TOP])
watchers = st.sampled_from([MIDDLE, TOP])
nested_masks = st.sampled_from([Event.IN, Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT])

# The steps of a child with its copy. It neither writes nor reads: the files are shared with the parent.
deeds = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["open_new", "open_regular", "close", "rearm", "unregister"]), numbers),
        st.tuples(st.just("open_duplicate"), numbers, picks),
        st.tuples(st.just("register"), numbers, masks),
        st.tuples(st.just("modify"), numbers, masks, st.booleans()),
        st.tuples(st.just("wait"), ways, counts, ranks),
        st.tuples(st.just("renew"), st.booleans()),
        st.tuples(st.just("fork")),
    ),
    max_size=6,
)


class File:
    """An open file description, an eventfd, and the events that one registration of it may report."""

    def __init__(self, keep: int | None = None) -> None:
        self.keep = os.eventfd(0, os.EFD_NONBLOCK) if keep is None else keep
        self.count = 0

    @property
    def ready(self) -> Event:
        """The events that may be ready."""
        return Event.OUT | Event.IN if self.count else Event.OUT

    @property
    def surely(self) -> Event:
        """The events that are certainly ready."""
        return self.ready


class Regular(File):
    """A regular file, which cannot be polled: it is always ready, and has no edges but those of changes."""

    def __init__(self) -> None:
        super().__init__(os.memfd_create("regular"))

    ready = Event.IN | Event.OUT


class Entry:
    """A registration: its file and mask, whether it is armed, and whether an edge is due."""

    def __init__(self, file: File, mask: Event, data: object) -> None:
        self.file, self.mask, self.data = file, mask, data
        self.armed = True
        # A change of an entry that is ready is an edge. An eventfd has one whenever it becomes ready. A
        # nested epoll does not: where its entry is on the ready list already, only its own wake-up is one.
        self.edge = not isinstance(file, Nested) or file.surely != 0
        # Not so once it may have been fetched and could not be given back, because its fd was closed.
        self.sure = True

    def may_report(self) -> int:
        return self.mask & self.file.ready if self.armed else 0

    def must_report(self) -> int:
        certain = self.sure and (self.edge or not self.mask & Event.ET)
        return self.mask & self.file.surely if certain and self.armed else 0


class Level:
    """An Epoll of the walk, and the model of it."""

    def __init__(self, walk: "Walk", rank: int) -> None:
        self.walk, self.rank = walk, rank
        self.ep = pyepoll.Epoll[Any](always_ready=True)
        self.entries: dict[int, Entry] = {}
        # A closed fd that is still listed, and one with an event not yet known to be stale.
        self.has_stale = False

    def listed(self, fd: int) -> bool:
        """Whether the kernel has an entry for this fd and its present file."""
        return fd in self.entries and self.walk.open.get(fd) is self.entries[fd].file

    def must(self) -> set[int]:
        """The fds that the next wait has to report."""
        return {fd for fd, entry in self.entries.items() if entry.must_report() and self.listed(fd)}

    def may(self) -> bool:
        """Whether it may be readable: for an entry of its own, or for a stale one."""
        return self.has_stale or any(entry.may_report() for entry in self.entries.values())


class Nested(File):
    """A level as a file of those above it. Closed, and kept open by a duplicate, it is never ready."""

    def __init__(self, level: Level) -> None:
        self.level, self.closed = level, False

    @property
    def ready(self) -> Event:
        return Event.IN if not self.closed and self.level.may() else Event(0)

    @property
    def surely(self) -> Event:
        return Event.IN if not self.closed and self.level.must() else Event(0)


class Unknown(File):
    """The parent's epoll, or a copy of another one: its events are unknown."""

    def __init__(self) -> None:
        pass

    ready = Event.IN | Event.OUT
    surely = Event(0)


class Walk(RuleBasedStateMachine):
    done: ClassVar[Counter[str]] = Counter()
    """The steps of all walks together, and the paths of the object that they reached."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.in_child = False
        self.waker = pyepoll.Waker()
        self.made = [File(self.waker.fileno())]
        self.open = {self.waker.fileno(): self.made[0]}
        # Files that are of no fd of the walk: duplicates of stale registrations.
        self.kept: list[int] = []
        self.stock = select.epoll()
        self.stock_entries: dict[int, Entry] = {}
        self.levels = [self.new_level(rank) for rank in (BOTTOM, MIDDLE, TOP)]
        self.register(self.ep.fileno(), Event.IN, MIDDLE)
        self.register(self.levels[MIDDLE].ep.fileno(), Event.IN, TOP)
        for fd in range(FIRST, FIRST + FILES):
            self.open_new(fd)

    @property
    def ep(self) -> "pyepoll.Epoll[Any]":
        return self.levels[BOTTOM].ep

    @property
    def entries(self) -> dict[int, Entry]:
        return self.levels[BOTTOM].entries

    @property
    def has_stale(self) -> bool:
        return self.levels[BOTTOM].has_stale

    def new_level(self, rank: int) -> Level:
        level = Level(self, rank)
        if rank < TOP:
            self.open[level.ep.fileno()] = Nested(level)
        return level

    def teardown(self) -> None:
        self.count_stats()
        self.stock.close()
        for level in reversed(self.levels):
            level.ep.close()
        for fd in [fd for fd in self.open if fd >= FIRST] + self.kept:
            os.close(fd)
        for file in self.made[1:]:
            os.close(file.keep)
        self.waker.close()

    def count_stats(self) -> None:
        for level in self.levels:
            stats = level.ep.stats()
            self.done.update(
                {
                    f"stale {level.rank}": stats.stale_events,
                    f"rebuilds {level.rank}": stats.rebuilds,
                    f"dropped {level.rank}": stats.lost_registrations,
                }
            )

    def listed(self, fd: int) -> bool:
        return self.levels[BOTTOM].listed(fd)

    def paths(self, refused: int | None = None) -> int:
        """In how many ways a file may wake the epolls five deep, at most. `refused` has one entry more."""
        stale = [
            len(fdinfo_lines(level.ep)) - len(level.entries) + (level.rank == refused)
            for level in self.levels
        ]
        bottom = max(Counter(entry.file for entry in self.entries.values()).values(), default=1)
        middle, top = (
            sum(isinstance(entry.file, Nested) for entry in level.entries.values())
            for level in self.levels[MIDDLE:]
        )
        ways = max(bottom + stale[BOTTOM], 1) * max(middle + stale[MIDDLE], 1)
        return ways * max(top + stale[TOP] + len(self.stock_entries), 1)

    @rule(fd=numbers)
    def open_new(self, fd: int) -> None:
        if fd not in self.open:
            self.made.append(File())
            self.open[fd] = self.made[-1]
            os.dup2(self.made[-1].keep, fd)

    @rule(fd=numbers)
    def open_regular(self, fd: int) -> None:
        if fd not in self.open:
            self.made.append(Regular())
            self.open[fd] = self.made[-1]
            os.dup2(self.made[-1].keep, fd)

    @rule(fd=numbers, pick=picks)
    def open_duplicate(self, fd: int, pick: int) -> None:
        if fd not in self.open:
            file = self.made[pick % len(self.made)]
            self.open[fd] = file
            os.dup2(file.keep, fd)

    @rule(fd=numbers)
    def close(self, fd: int) -> None:
        """Its file stays open: the registration becomes stale."""
        if fd in self.open:
            os.close(fd)
            del self.open[fd]
            for level in self.levels:
                level.has_stale |= fd in level.entries

    @rule(fd=numbers, mask=masks, rank=ranks)
    def register(self, fd: int, mask: Event, rank: int = BOTTOM) -> None:
        level = self.levels[rank]
        data = object()
        try:
            level.ep.register(fd, mask, data)
        except OSError as error:
            if fd not in self.open:
                assert error.errno == errno.EBADF
            elif error.errno == errno.EINVAL:
                itself = isinstance(file := self.open[fd], Nested) and file.level is level
                assert itself or self.paths(rank) > PATHS
            else:
                # The kernel decides: it may have an entry for this fd and file from an earlier registration.
                assert error.errno == errno.EEXIST
                assert level.listed(fd) or level.has_stale
        else:
            assert fd in self.open
            assert not level.listed(fd)
            level.entries[fd] = Entry(self.open[fd], mask, data)
            if level.entries[fd].must_report():
                self.edge_of_nested(level)

    # The same where it is likely to succeed, or most walks would be of refusals.

    @rule(pick=st.integers(0, FILES), mask=masks)
    def register_more(self, pick: int, mask: Event) -> None:
        if free := [fd for fd in self.files() if fd not in self.entries]:
            self.register(free[pick % len(free)], mask)

    @precondition(lambda self: self.entries)
    @rule(pick=st.integers(0, FILES), mask=masks, new=st.booleans())
    def modify_registered(self, pick: int, mask: Event, new: bool) -> None:
        self.modify(list(self.entries)[pick % len(self.entries)], mask, new)

    @precondition(lambda self: self.entries)
    @rule(pick=st.integers(0, FILES))
    def rearm_registered(self, pick: int) -> None:
        self.rearm(list(self.entries)[pick % len(self.entries)])

    def files(self) -> list[int]:
        """The open fds that are no epolls'."""
        return [fd for fd, file in self.open.items() if type(file) in (File, Regular)]

    @rule(mask=masks)
    def register_all(self, mask: Event) -> None:
        for fd in [fd for fd in self.files() if fd not in self.entries]:
            self.register(fd, mask)

    # And the steps that find most errors: an fd closed while its file stays open, a batch of which a part is
    # given back, a stale registration that is removed.

    @precondition(lambda self: self.entries)
    @rule(pick=picks)
    def abandon(self, pick: int) -> None:
        fd = list(self.entries)[pick % len(self.entries)]
        if fd >= FIRST:
            self.close(fd)
            self.unregister(fd)

    @precondition(lambda self: self.entries)
    @rule(way=st.sampled_from(["drop", "iterate"]), mask=masks)
    def give_back(self, way: str, mask: Event) -> None:
        self.register_all(mask)
        self.wait(way, 1)
        self.wait("poll", 1)

    @precondition(lambda self: self.has_stale)
    @rule(way=ways)
    def wait_for_a_rebuild(self, way: str) -> None:
        for _ in range(10):
            self.wait(way, 1)

    def forget_if_gone(self, level: Level, fd: int) -> None:
        if fd in level.entries and not level.listed(fd):
            del level.entries[fd]

    def exclusive(self, level: Level, fd: int, mask: Event | int = 0) -> int:
        """Whether the kernel may have refused a change because of EXCLUSIVE."""
        if level.has_stale and not level.listed(fd):
            # The mask of a stale registration counts too, once the same file is back under its fd.
            return True
        entry = level.entries.get(fd)
        return (mask | entry.mask if entry else mask) & Event.EXCLUSIVE

    @rule(fd=numbers, mask=masks, new=st.booleans(), rank=ranks)
    def modify(self, fd: int, mask: Event, new: bool, rank: int = BOTTOM) -> None:
        level = self.levels[rank]
        data = [object()] if new else []
        try:
            level.ep.modify(fd, mask, *data)
        except OSError as error:
            if fd not in self.open:
                assert error.errno == errno.EBADF
            elif error.errno == errno.EINVAL:
                assert self.exclusive(level, fd, mask)
                return
            else:
                assert error.errno == errno.ENOENT
                assert not level.listed(fd)
            self.forget_if_gone(level, fd)
        else:
            assert fd in self.open
            if not level.has_stale:
                assert level.listed(fd)
            entry = Entry(self.open[fd], mask, data[0] if new else level.ep.registrations[fd][1])
            level.entries[fd] = entry

    @rule(fd=numbers, rank=ranks)
    def rearm(self, fd: int, rank: int = BOTTOM) -> None:
        level = self.levels[rank]
        try:
            level.ep.rearm(fd)
        except OSError as error:
            assert error.errno in (errno.EBADF, errno.ENOENT, errno.EINVAL)
            if error.errno == errno.EINVAL:
                assert self.exclusive(level, fd)
            else:
                assert not level.listed(fd)
                self.forget_if_gone(level, fd)
        else:
            # Where the fd was closed, it may refer to the file of an older stale registration again.
            entry = level.entries[fd]
            level.entries[fd] = Entry(self.open[fd], entry.mask, entry.data)

    @rule(fd=numbers, rank=ranks)
    def unregister(self, fd: int, rank: int = BOTTOM) -> None:
        level = self.levels[rank]
        try:
            level.ep.unregister(fd)
        except OSError as error:
            assert error.errno in (errno.EBADF, errno.ENOENT)
            assert not level.listed(fd)
        level.entries.pop(fd, None)

    # Epolls in epolls. A nested one has its own fd, and at times the duplicate.

    def nested(self, below: int) -> list[int]:
        """The fds of the levels below this one, of closed ones that were and have a duplicate as well."""
        return [fd for fd, file in self.open.items() if isinstance(file, Nested) and file.level.rank < below]

    @rule(rank=watchers, pick=picks, mask=nested_masks)
    def watch(self, rank: int, pick: int, mask: Event) -> None:
        if fds := self.nested(rank):
            fd = fds[pick % len(fds)]
            change = self.modify_nested if self.levels[rank].listed(fd) else self.register
            change(fd, mask, rank)

    def modify_nested(self, fd: int, mask: Event, rank: int) -> None:
        self.modify(fd, mask, False, rank)

    @rule(rank=watchers, pick=picks, deed=st.sampled_from(["rearm", "unregister", "unregister and again"]))
    def change_nested(self, rank: int, pick: int, deed: str) -> None:
        if fds := [fd for fd, e in self.levels[rank].entries.items() if isinstance(e.file, Nested)]:
            fd = fds[pick % len(fds)]
            mask = self.levels[rank].entries[fd].mask
            getattr(self, deed.split()[0])(fd, rank)
            if deed == "unregister and again" and fd in self.open:
                self.register(fd, mask, rank)

    @rule(rank=st.sampled_from([BOTTOM, MIDDLE]), watch=st.booleans(), mask=nested_masks)
    def duplicate_nested(self, rank: int, watch: bool, mask: Event) -> None:
        if DUPLICATE not in self.open and self.paths() * 2 <= PATHS:
            fd = self.levels[rank].ep.fileno()
            self.open[DUPLICATE] = self.open[fd]
            os.dup2(fd, DUPLICATE)
            if watch:
                self.register(DUPLICATE, mask, rank + 1)

    @rule()
    def close_duplicate(self) -> None:
        self.close(DUPLICATE)

    @precondition(lambda self: self.levels[MIDDLE].listed(self.ep.fileno()))
    @rule(rank=st.sampled_from([BOTTOM, MIDDLE]))
    def refuse_a_circle(self, rank: int) -> None:
        """Neither the bottom one nor the middle one itself can watch the middle one; nothing is changed."""
        level = self.levels[rank]
        before = fdinfo_lines(level.ep), dict(level.ep.registrations)
        with pytest.raises(OSError) as caught:
            level.ep.register(self.levels[MIDDLE].ep, Event.IN)
        assert caught.value.errno == (errno.ELOOP if rank == BOTTOM else errno.EINVAL)
        assert (fdinfo_lines(level.ep), dict(level.ep.registrations)) == before

    @rule(pick=picks, mask=nested_masks, deed=st.sampled_from(["watch", "watch", "unregister"]))
    def change_stock(self, pick: int, mask: Event, deed: str) -> None:
        fds = [level.ep.fileno() for level in self.levels[:TOP]]
        fd = fds[pick % len(fds)]
        entry = self.stock_entries.get(fd)
        known = entry is not None and entry.file is self.open[fd]
        if deed == "unregister":
            if known:
                self.stock.unregister(fd)
                del self.stock_entries[fd]
            return
        try:
            (self.stock.modify if known else self.stock.register)(fd, int(mask))
        except OSError as error:
            assert error.errno == errno.EINVAL
            assert self.paths(TOP) > PATHS  # the stock epoll is as high as the top
        else:
            self.stock_entries[fd] = Entry(self.open[fd], mask, fd)

    @rule(count=counts)
    def poll_stock(self, count: int) -> None:
        self.is_ready_at_each_level()
        must = {fd for fd, e in self.stock_entries.items() if e.must_report() and self.open.get(fd) is e.file}
        seen = set()
        for fd, mask in self.stock.poll(0):
            entry = self.stock_entries[fd]
            assert entry.file is self.open.get(fd), "not one that is closed"
            assert mask & ~entry.may_report() == 0
            self.account(entry, False)
            seen.add(fd)
        assert must <= seen, "none is lost"
        self.settle()

    @rule(rank=ranks)
    def leave_stale(self, rank: int) -> None:
        """An eventfd closed without unregister, with a duplicate: repaired by the next waits."""
        level = self.levels[rank]
        if len(self.kept) < 4 and self.paths() <= PATHS:
            fd = os.eventfd(1, os.EFD_NONBLOCK)
            if fd in level.entries:
                # The fd of an epoll that was closed and not unregistered.
                level.ep.unregister(fd) if level.listed(fd) else None
                level.entries.pop(fd, None)
            try:
                level.ep.register(fd, Event.IN, stale := object())
            except OSError as error:
                os.close(fd)
                assert error.errno == errno.EINVAL
                assert self.paths() >= PATHS
                return
            self.kept.append(os.dup(fd))
            os.close(fd)
            with pytest.raises(OSError):
                level.ep.unregister(fd)
            del stale
            level.has_stale = True

    @precondition(lambda self: any(level.has_stale for level in self.levels))
    @rule(way=ways)
    def wait_for_repairs(self, way: str) -> None:
        for level in self.levels:
            if level.has_stale:
                for _ in range(5):
                    self.wait(way, 1, level.rank)

    @rule(fd=numbers)
    def write(self, fd: int) -> None:
        if type(self.open.get(fd)) is File:
            os.eventfd_write(fd, 1)
            self.open[fd].count += 1
            self.edge_of(self.open[fd], Event.IN)

    @rule(fd=numbers)
    def read(self, fd: int) -> None:
        if type(self.open.get(fd)) is File and self.open[fd].count:
            os.eventfd_read(fd)
            self.open[fd].count = 0
            self.edge_of(self.open[fd], Event.OUT)

    @rule()
    def wake(self) -> None:
        self.waker.wake()
        self.made[0].count += 1
        self.edge_of(self.made[0], Event.IN)

    @rule()
    def clear(self) -> None:
        assert self.waker.clear() is (self.made[0].count > 0)
        if self.made[0].count:
            self.made[0].count = 0
            self.edge_of(self.made[0], Event.OUT)

    def edge_of(self, file: File, wake: Event) -> None:
        """An eventfd wakes its watchers at each write and read, and an edge is a wake.

        An epoll with an entry that is woken, for an event in its mask, wakes its own watchers in turn.
        """
        for level in self.levels:
            woken = False
            for fd, entry in level.entries.items():
                if entry.file is file:
                    entry.edge = True
                    asked = entry.armed and entry.sure and level.listed(fd) and entry.mask & wake
                    woken |= bool(asked and entry.must_report())
            if woken:
                self.edge_of_nested(level)

    def edge_of_nested(self, level: Level) -> None:
        """The watchers of the level are woken."""
        if level.rank < TOP:
            file = self.open[level.ep.fileno()]
            for entry in self.stock_entries.values():
                entry.edge |= entry.file is file
            self.edge_of(file, Event.IN)

    def settle(self) -> None:
        """An entry found not ready is off the ready lists: only another wake is an edge then."""
        for entries in (*(level.entries for level in self.levels), self.stock_entries):
            for entry in entries.values():
                if isinstance(entry.file, Nested):
                    entry.edge &= entry.must_report() != 0

    def account(self, entry: Entry, owed: bool) -> None:
        """One has been reported."""
        entry.edge = owed
        if entry.mask & Event.ONESHOT:
            entry.armed = False

    def is_ready_at_each_level(self) -> None:
        """Each level is readable to its watchers if, and only if, it has something to report."""
        for level in self.levels:
            poll = select.poll()
            poll.register(instance_fd(level.ep), select.POLLIN)
            readable = poll.poll(0) != []
            if level.must():
                assert readable, f"level {level.rank} has something to report"
            if readable:
                assert level.may(), f"level {level.rank} has nothing to report"
        self.settle()

    @rule(way=ways, count=counts, rank=ranks)
    def wait(self, way: str, count: int, rank: int = BOTTOM) -> None:
        level = self.levels[rank]
        self.is_ready_at_each_level()
        must = level.must()
        if way == "poll":
            events = level.ep.poll(0)
        elif way == "wait":
            events = list(level.ep.wait(0))
        elif way == "one":
            events = level.ep.poll(0, count)
        elif way == "drop":
            # Events fetched and not handed out are given back.
            events = list(itertools.islice(level.ep.wait(0), count))
        elif must:
            # Checked before it is fetched, because the iteration would wait indefinitely.
            watched = level.ep if rank < TOP else instance_fd(level.ep)
            assert select.select([watched], [], [], 0)[0], "none is lost"
            events = list(itertools.islice(level.ep, 1))
        else:
            events = level.ep.poll(0)
        seen = set()
        may = {fd: entry.may_report() for fd, entry in level.entries.items()}
        for data, mask in events:
            ((fd, entry),) = [(fd, entry) for fd, entry in level.entries.items() if entry.data is data]
            assert mask & ~may[fd] == 0, "nothing that was not asked for, or is not so"
            assert mask
            seen.add(fd)
            self.account(entry, False)
        assert len(seen) == len(events), "each once"
        for fd, entry in level.entries.items():
            entry.sure &= way not in ("iterate", "drop") or level.listed(fd)
        if way in ("poll", "wait"):
            assert must <= seen, "none is lost"
        elif must:
            assert events
        self.settle()

    def renew(self, drop: bool) -> None:
        """Close the object, or release it, and make another, most likely with the same fd."""
        self.replace(BOTTOM, drop, True, "here")

    @precondition(lambda self: self.steps % 4 == 3)
    @rule(
        rank=ranks,
        drop=st.booleans(),
        unregister=st.booleans(),
        where=st.sampled_from(["here", "in a thread", "racing"]),
        mask=nested_masks,
    )
    def replace_level(self, rank: int, drop: bool, unregister: bool, where: Any, mask: Event) -> None:
        """The same at any level, also where it is still watched, and in another thread."""
        self.replace(rank, drop, unregister, where, mask)

    def replace(
        self,
        rank: int,
        drop: bool,
        unregister: bool,
        where: Literal["here", "in a thread", "racing"],
        mask: Event = Event.IN,
    ) -> None:
        self.count_stats()
        self.done[f"closes {where}"] += 1
        level = self.levels[rank]
        fd = level.ep.fileno() if rank < TOP else -1
        above = [outer for outer in self.levels if fd in outer.entries]
        if unregister:
            for outer in above:
                self.unregister(fd, outer.rank)
            if fd in self.stock_entries:
                if self.stock_entries.pop(fd).file is self.open[fd]:
                    self.stock.unregister(fd)
        if where == "racing":
            self.close_in_a_race(level)
        elif drop:
            del level.ep
        elif where == "in a thread":
            thread = threading.Thread(target=level.ep.close)
            thread.start()
            thread.join()
        else:
            level.ep.close()
        if not drop or where == "racing":
            assert level.ep.closed
            with pytest.raises(ValueError):
                level.ep.poll(0)
        if rank < TOP:
            file = self.open.pop(fd)
            assert isinstance(file, Nested)
            file.closed = True
            for outer in above:
                # Of another open file there may be a stale registration under this fd.
                outer.has_stale |= not unregister
        self.levels[rank] = self.new_level(rank)
        for outer in self.levels[rank + 1 :]:
            if rank < TOP and (outer in above or outer.rank == rank + 1):
                self.watch_new(outer, self.levels[rank].ep.fileno(), mask)

    def watch_new(self, outer: Level, fd: int, mask: Event) -> None:
        """The new level has no entries, so it adds no path to a file."""
        assert not outer.listed(fd)
        self.register(fd, mask, outer.rank)
        assert outer.listed(fd)

    def close_in_a_race(self, level: Level) -> None:
        """While those above it, and it itself, are polled."""
        thread = threading.Thread(target=level.ep.close)
        thread.start()
        closed = False
        while not closed:
            closed = not thread.is_alive()
            for each in self.levels[level.rank :]:
                try:
                    events = each.ep.poll(0)
                except ValueError:
                    assert each is level
                    continue
                for data, mask in events:
                    (entry,) = [entry for entry in each.entries.values() if entry.data is data]
                    assert mask & ~entry.may_report() == 0
                    self.account(entry, False)
        thread.join()
        self.settle()

    @precondition(lambda self: self.steps % 2)
    @rule(deeds=deeds)
    def fork_child(self, deeds: list[tuple[Any, ...]]) -> None:
        # A child's copies wake the same files by paths of their own.
        forks = 1 + sum(deed == "fork" for deed, *_ in deeds)
        if self.paths() * (1 + forks) > PATHS:
            return
        for level in self.levels:
            # The model does not know which other file has the fd of a closed epoll.
            for fd in [fd for fd in level.entries if fd < FIRST and fd not in self.open]:
                self.unregister(fd, level.rank)
            # A copy takes a reused fd for the registered one: an epoll that leads back to it is too deep.
            other = self.open.get(DUPLICATE)
            if isinstance(other, Nested) and other.level.rank >= level.rank and DUPLICATE in level.entries:
                self.unregister(DUPLICATE, level.rank)
        self.done["forks"] += 1
        before = [(fdinfo_lines(level.ep), level.ep.stats()) for level in self.levels]
        assert in_child(partial(self.live_on, deeds)) == ""
        after = [(fdinfo_lines(level.ep), level.ep.stats()) for level in self.levels]
        assert after == before, "nothing that a child does is seen here"

    def live_on(self, deeds: list[tuple[Any, ...]], used: bool = False) -> None:
        """The steps of the child. A copy that it has not used stays as it is."""
        for number, (deed, *arguments) in enumerate(deeds, 1):
            if deed == "fork":
                assert in_child(partial(self.live_on, deeds[number:])) == ""
                break
            if not used and deed not in ("open_new", "open_regular", "open_duplicate", "close"):
                used = True
                self.inherit(len(deeds) % 2 == 0)
            getattr(self, deed)(*arguments)
            self.agrees_with_the_model()
            if used:
                self.agrees_with_the_kernel()

    def inherit(self, outer_first: bool) -> None:
        """The copies get their instances: without the closed fds, and of the files that have the fds now."""
        self.stock_entries = {}
        if DUPLICATE in self.open:
            # It is the parent's epoll still.
            self.open[DUPLICATE] = Unknown()
        for level in self.levels[:: -1 if outer_first else 1]:
            with pytest.raises(OSError):
                level.ep.unregister(DUPLICATE + 1)
        for level in self.levels:
            level.has_stale = False
        for level in self.levels:
            old = {fd: entry for fd, entry in level.entries.items() if self.is_inherited(fd, entry)}
            level.entries = old
            for fd, entry in old.items():
                entry.file = self.open[fd]
                entry.edge = not isinstance(entry.file, Nested)

    def is_inherited(self, fd: int, entry: Entry) -> bool:
        """A copy takes a reused fd for the registered one, unless one of the two files is a regular one."""
        file = self.open.get(fd)
        regular = isinstance(entry.file, Regular) or isinstance(file, Regular)
        return file is entry.file if regular else file is not None

    @invariant()
    def counts_steps(self) -> None:
        self.steps += 1
        self.done["steps"] += 1

    @invariant()
    def agrees_with_the_model(self) -> None:
        for level in self.levels:
            # A registration that the check of closed fds has found is removed from both.
            registrations = dict(level.ep.registrations)
            for fd in [fd for fd in level.entries if fd not in registrations]:
                assert not level.listed(fd)
                del level.entries[fd]
            assert registrations == {fd: (entry.mask, entry.data) for fd, entry in level.entries.items()}
            assert len(level.ep) == len(level.entries)

    @invariant()
    def agrees_with_the_kernel(self) -> None:
        for level in self.levels:
            # The data have the fd, also for the eventfd in the place of a regular file.
            known = sorted(
                (data & 0xFFFFFFFF, events | IMPLIED) for _, events, data in fdinfo_lines(level.ep)
            )
            for fd, entry in level.entries.items():
                if level.listed(fd):
                    # A fired one-shot asks for nothing.
                    mask = entry.mask if entry.armed else entry.mask & (Event.ONESHOT | Event.ET)
                    assert (fd, mask | IMPLIED) in known or not entry.sure
            if not level.has_stale:
                assert [fd for fd, _ in known] == sorted(level.entries)


@pytest.mark.lasts(3600)
# In parts, each with the timeout of a test: a debug build under load needs it.
@pytest.mark.parametrize("part", thirds((part,) for part in range(4)))
def test_random_walks_agree_with_the_model(part: int, effort: Effort, show: Callable[[str], None]) -> None:
    Walk.done.clear()
    walks = settings(
        # A sanitizer checks each step, and takes five times as long for it.
        max_examples=effort(25 if SANITIZED else 75, 2500),
        stateful_step_count=60,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Walk, settings=walks)
    show(", ".join(f"{count} {what}" for what, count in Walk.done.items()))
