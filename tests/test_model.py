"""A random walk over everything an Epoll does; after each step the kernel and a plain model agree with it."""

import errno
import os
from typing import Any

from conftest import IMPLIED, fdinfo_lines
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import pyepoll
from pyepoll import Event

FILES = 4
"""eventfds that are walked over, each with a number of its own far above all others."""
FIRST = 500

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
waits = st.sampled_from(["poll", "wait", "iterate", "one", "drop"])


class File:
    """An open file description: an eventfd. The model of what one registration of it may report."""

    def __init__(self) -> None:
        self.keep = os.eventfd(0, os.EFD_NONBLOCK)
        self.count = 0

    @property
    def ready(self) -> Event:
        return Event.OUT | Event.IN if self.count else Event.OUT


class Entry:
    """A registration: of which file, for what, whether it is armed, and whether an edge is to come."""

    def __init__(self, file: File, mask: Event, data: object) -> None:
        self.file, self.mask, self.data = file, mask, data
        self.armed = self.edge = True

    def may_report(self) -> int:
        return self.mask & self.file.ready if self.armed else 0

    def must_report(self) -> int:
        return self.may_report() if self.edge or not self.mask & Event.ET else 0


class Walk(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ep = pyepoll.Epoll[Any]()
        self.made: list[File] = []
        self.open: dict[int, File] = {}
        self.entries: dict[int, Entry] = {}
        # A closed fd that is still listed, and one of whose events it is still unknown that it is a ghost's.
        self.ghosts = False
        for fd in range(FIRST, FIRST + FILES):
            self.open_new(fd)

    def teardown(self) -> None:
        self.ep.close()
        for fd in self.open:
            os.close(fd)
        for file in self.made:
            os.close(file.keep)

    def listed(self, fd: int) -> bool:
        """Whether the kernel knows the file that is under this number now, by this number."""
        return fd in self.entries and self.open.get(fd) is self.entries[fd].file

    @rule(fd=numbers)
    def open_new(self, fd: int) -> None:
        if fd not in self.open:
            self.made.append(File())
            self.open[fd] = self.made[-1]
            os.dup2(self.made[-1].keep, fd)

    @precondition(lambda self: self.made)
    @rule(fd=numbers, pick=st.integers(0, 100))
    def open_duplicate(self, fd: int, pick: int) -> None:
        if fd not in self.open:
            file = self.made[pick % len(self.made)]
            self.open[fd] = file
            os.dup2(file.keep, fd)

    @rule(fd=numbers)
    def close(self, fd: int) -> None:
        """Its file stays open: what was registered becomes a ghost."""
        if fd in self.open:
            os.close(fd)
            del self.open[fd]
            self.ghosts |= fd in self.entries

    @rule(fd=numbers, mask=masks)
    def register(self, fd: int, mask: Event) -> None:
        data = object()
        try:
            self.ep.register(fd, mask, data)
        except OSError as error:
            if fd not in self.open:
                assert error.errno == errno.EBADF
            else:
                # The kernel decides: it may know this very file by this number from an earlier registration.
                assert error.errno == errno.EEXIST
                assert self.listed(fd) or self.ghosts
        else:
            assert fd in self.open
            assert not self.listed(fd)
            self.entries[fd] = Entry(self.open[fd], mask, data)

    # The same where it is likely to succeed, or most walks would be of refusals.

    @rule(pick=st.integers(0, FILES), mask=masks)
    def register_more(self, pick: int, mask: Event) -> None:
        if free := [fd for fd in self.open if fd not in self.entries]:
            self.register(free[pick % len(free)], mask)

    @precondition(lambda self: self.entries)
    @rule(pick=st.integers(0, FILES), mask=masks, new=st.booleans())
    def modify_registered(self, pick: int, mask: Event, new: bool) -> None:
        self.modify(list(self.entries)[pick % len(self.entries)], mask, new)

    @precondition(lambda self: self.entries)
    @rule(pick=st.integers(0, FILES))
    def rearm_registered(self, pick: int) -> None:
        self.rearm(list(self.entries)[pick % len(self.entries)])

    @rule()
    def register_all(self) -> None:
        for fd in [fd for fd in self.open if fd not in self.entries]:
            self.register(fd, Event.OUT)

    def forget_if_gone(self, fd: int) -> None:
        if fd in self.entries and not self.listed(fd):
            del self.entries[fd]

    @rule(fd=numbers, mask=masks, new=st.booleans())
    def modify(self, fd: int, mask: Event, new: bool) -> None:
        data = [object()] if new else []
        try:
            self.ep.modify(fd, mask, *data)
        except OSError as error:
            if fd not in self.open:
                assert error.errno == errno.EBADF
            elif error.errno == errno.EINVAL:
                exclusive = self.entries[fd].mask | mask if fd in self.entries else mask
                assert exclusive & Event.EXCLUSIVE
                return
            else:
                assert error.errno == errno.ENOENT
                assert not self.listed(fd)
            self.forget_if_gone(fd)
        else:
            assert fd in self.open
            if not self.ghosts:
                assert self.listed(fd)
            entry = Entry(self.open[fd], mask, data[0] if new else self.ep.registrations[fd][1])
            self.entries[fd] = entry

    @rule(fd=numbers)
    def rearm(self, fd: int) -> None:
        try:
            self.ep.rearm(fd)
        except OSError as error:
            assert error.errno in (errno.EBADF, errno.ENOENT, errno.EINVAL)
            if error.errno == errno.EINVAL:
                assert self.entries[fd].mask & Event.EXCLUSIVE
            else:
                assert not self.listed(fd)
                self.forget_if_gone(fd)
        else:
            self.entries[fd].armed = self.entries[fd].edge = True

    @rule(fd=numbers)
    def unregister(self, fd: int) -> None:
        try:
            self.ep.unregister(fd)
        except OSError as error:
            assert error.errno in (errno.EBADF, errno.ENOENT)
            assert not self.listed(fd)
        self.entries.pop(fd, None)

    @rule(fd=numbers)
    def write(self, fd: int) -> None:
        if fd in self.open:
            os.eventfd_write(fd, 1)
            self.open[fd].count += 1
            self.edge_of(self.open[fd])

    @rule(fd=numbers)
    def read(self, fd: int) -> None:
        if fd in self.open and self.open[fd].count:
            os.eventfd_read(fd)
            self.open[fd].count = 0
            self.edge_of(self.open[fd])

    def edge_of(self, file: File) -> None:
        """An eventfd wakes its watchers at each write and read, and an edge is a wake."""
        for entry in self.entries.values():
            if entry.file is file:
                entry.edge = True

    @rule(way=waits, count=st.integers(1, 3))
    def wait(self, way: str, count: int) -> None:
        must = {fd for fd, entry in self.entries.items() if entry.must_report() and self.listed(fd)}
        if way == "poll":
            events = self.ep.poll(0)
        elif way == "wait":
            events = list(self.ep.wait(0))
        elif way == "one":
            events = self.ep.poll(0, count)
        elif way == "drop":
            batch = self.ep.wait(0)
            events = [event for event, _ in zip(batch, range(count), strict=False)]
            del batch
            # zip takes one more than it hands out.
            self.forget_edges()
            return
        elif must:
            batch = iter(self.ep)
            events = [next(batch)]
            del batch
        else:
            return
        seen = set()
        for data, mask in events:
            ((fd, entry),) = [(fd, entry) for fd, entry in self.entries.items() if entry.data is data]
            assert mask & ~entry.may_report() == 0, "nothing that was not asked for, or is not so"
            assert mask
            seen.add(fd)
            entry.edge = False
            if entry.mask & Event.ONESHOT:
                entry.armed = False
        assert len(seen) == len(events), "each once"
        if way in ("poll", "wait"):
            assert must <= seen, "none is lost"
        elif must:
            assert events

    def forget_edges(self) -> None:
        """What was handed out of a batch and what was given back is another test's."""
        for fd, entry in self.entries.items():
            if entry.mask & (Event.ET | Event.ONESHOT) and self.listed(fd):
                self.ep.rearm(fd)
                entry.armed = entry.edge = True

    @invariant()
    def agrees_with_the_model(self) -> None:
        # What the check of closed numbers has found is gone from both.
        for fd in [fd for fd in self.entries if fd not in self.ep.registrations]:
            assert not self.listed(fd)
            del self.entries[fd]
        assert dict(self.ep.registrations) == {
            fd: (entry.mask, entry.data) for fd, entry in self.entries.items()
        }
        assert len(self.ep) == len(self.entries)

    @invariant()
    def agrees_with_the_kernel(self) -> None:
        known = {(fd, events | IMPLIED) for fd, events, _ in fdinfo_lines(self.ep)}
        for fd, entry in self.entries.items():
            if self.listed(fd):
                # A spent one-shot asks for nothing.
                spent = entry.mask & (Event.ONESHOT | Event.ET | Event.EXCLUSIVE)
                assert {(fd, int(entry.mask | IMPLIED)), (fd, int(spent | IMPLIED))} & known
        if not self.ghosts:
            assert {fd for fd, _ in known} == set(self.entries)


def test_walks() -> None:
    walks = settings(
        max_examples=50,
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Walk, settings=walks)
