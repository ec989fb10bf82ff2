"""A random walk over everything an Epoll does; after each step the kernel and a plain model agree with it."""

import errno
import itertools
import os
import select
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from conftest import IMPLIED, SANITIZED, Effort, fdinfo_lines
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_fork import in_child

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
ways = st.sampled_from(["poll", "wait", "iterate", "one", "drop"])
counts = st.integers(1, 3)
picks = st.integers(0, 100)

# What a child does with its copy. It neither writes nor reads: the files are the parent's too.
deeds = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["open_new", "close", "rearm", "unregister"]), numbers),
        st.tuples(st.just("open_duplicate"), numbers, picks),
        st.tuples(st.just("register"), numbers, masks),
        st.tuples(st.just("modify"), numbers, masks, st.booleans()),
        st.tuples(st.just("wait"), ways, counts),
        st.tuples(st.just("renew"), st.booleans()),
        st.tuples(st.just("fork")),
    ),
    max_size=6,
)


class File:
    """An open file description: an eventfd. The model of what one registration of it may report."""

    def __init__(self, keep: int | None = None) -> None:
        self.keep = os.eventfd(0, os.EFD_NONBLOCK) if keep is None else keep
        self.count = 0

    @property
    def ready(self) -> Event:
        return Event.OUT | Event.IN if self.count else Event.OUT


class Entry:
    """A registration: of which file, for what, whether it is armed, and whether an edge is to come."""

    def __init__(self, file: File, mask: Event, data: object) -> None:
        self.file, self.mask, self.data = file, mask, data
        self.armed = self.edge = True
        # Not so once it may have been fetched and could not be given back, because its number was closed.
        self.sure = True

    def may_report(self) -> int:
        return self.mask & self.file.ready if self.armed else 0

    def must_report(self) -> int:
        certain = self.sure and (self.edge or not self.mask & Event.ET)
        return self.may_report() if certain else 0


class Walk(RuleBasedStateMachine):
    done: ClassVar[Counter[str]] = Counter()
    """What all walks together have done, and seen the object do."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.ep = pyepoll.Epoll[Any]()
        # Watches the other one, in the child as well.
        self.outer = pyepoll.Epoll[Any]()
        self.outer.register(self.ep, Event.IN, "inner")
        self.waker = pyepoll.Waker()
        self.made = [File(self.waker.fileno())]
        self.open = {self.waker.fileno(): self.made[0]}
        self.entries: dict[int, Entry] = {}
        # A closed fd that is still listed, and one of whose events it is still unknown that it is a ghost's.
        self.ghosts = False
        for fd in range(FIRST, FIRST + FILES):
            self.open_new(fd)

    def teardown(self) -> None:
        self.count_stats()
        self.outer.close()
        self.ep.close()
        # The first file is the waker's.
        for fd in list(self.open)[1:]:
            os.close(fd)
        for file in self.made[1:]:
            os.close(file.keep)
        self.waker.close()

    def count_stats(self) -> None:
        stats = self.ep.stats()
        self.done.update(stale=stats.stale_events, cures=stats.rebuilds, dropped=stats.lost_registrations)

    def listed(self, fd: int) -> bool:
        """Whether the kernel knows the file that is under this number now, by this number."""
        return fd in self.entries and self.open.get(fd) is self.entries[fd].file

    @rule(fd=numbers)
    def open_new(self, fd: int) -> None:
        if fd not in self.open:
            self.made.append(File())
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

    @rule(mask=masks)
    def register_all(self, mask: Event) -> None:
        for fd in [fd for fd in self.open if fd not in self.entries]:
            self.register(fd, mask)

    # And where it is likely to tell something: a number that is given up while its file lives, a batch of
    # which a part is given back, a ghost that is cured.

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

    @precondition(lambda self: self.ghosts)
    @rule(way=ways)
    def wait_for_a_cure(self, way: str) -> None:
        for _ in range(10):
            self.wait(way, 1)

    def forget_if_gone(self, fd: int) -> None:
        if fd in self.entries and not self.listed(fd):
            del self.entries[fd]

    def exclusive(self, fd: int, mask: Event | int = 0) -> int:
        """Whether the kernel may have refused a change because of EXCLUSIVE."""
        if self.ghosts and not self.listed(fd):
            # A ghost's mask counts too, once its very file is back under its number.
            return True
        return (mask | self.entries[fd].mask if fd in self.entries else mask) & Event.EXCLUSIVE

    @rule(fd=numbers, mask=masks, new=st.booleans())
    def modify(self, fd: int, mask: Event, new: bool) -> None:
        data = [object()] if new else []
        try:
            self.ep.modify(fd, mask, *data)
        except OSError as error:
            if fd not in self.open:
                assert error.errno == errno.EBADF
            elif error.errno == errno.EINVAL:
                assert self.exclusive(fd, mask)
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
                assert self.exclusive(fd)
            else:
                assert not self.listed(fd)
                self.forget_if_gone(fd)
        else:
            # Where the number was closed, it may be an older ghost's file that it has again.
            entry = self.entries[fd]
            self.entries[fd] = Entry(self.open[fd], entry.mask, entry.data)

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

    @rule()
    def wake(self) -> None:
        self.waker.wake()
        self.made[0].count += 1
        self.edge_of(self.made[0])

    @rule()
    def clear(self) -> None:
        assert self.waker.clear() is (self.made[0].count > 0)
        if self.made[0].count:
            self.made[0].count = 0
            self.edge_of(self.made[0])

    def edge_of(self, file: File) -> None:
        """An eventfd wakes its watchers at each write and read, and an edge is a wake."""
        for entry in self.entries.values():
            if entry.file is file:
                entry.edge = True

    @rule(way=ways, count=counts)
    def wait(self, way: str, count: int) -> None:
        must = {fd for fd, entry in self.entries.items() if entry.must_report() and self.listed(fd)}
        if must:
            assert self.outer.poll(0) == [("inner", Event.IN)], "it is reported to whoever watches"
        if way == "poll":
            events = self.ep.poll(0)
        elif way == "wait":
            events = list(self.ep.wait(0))
        elif way == "one":
            events = self.ep.poll(0, count)
        elif way == "drop":
            # What it fetched and did not hand out is given back.
            events = list(itertools.islice(self.ep.wait(0), count))
        elif must:
            # Seen before it is fetched, for the iteration would wait for ever.
            assert select.select([self.ep], [], [], 0)[0], "none is lost"
            events = list(itertools.islice(self.ep, 1))
        else:
            events = self.ep.poll(0)
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
        for fd in self.entries:
            self.entries[fd].sure &= way not in ("iterate", "drop") or self.listed(fd)
        if way in ("poll", "wait"):
            assert must <= seen, "none is lost"
        elif must:
            assert events

    @precondition(lambda self: self.steps % 20 == 19)
    @rule(drop=st.booleans())
    def renew(self, drop: bool) -> None:
        """Close the object, or let it go, and make another, most likely with the same number."""
        self.count_stats()
        self.outer.unregister(self.ep)
        if not drop:
            self.ep.close()
            assert self.ep.closed
            with pytest.raises(ValueError):
                self.ep.poll(0)
        del self.ep
        self.ep = pyepoll.Epoll()
        self.outer.register(self.ep, Event.IN, "inner")
        self.entries = {}
        self.ghosts = False

    @precondition(lambda self: self.steps % 2)
    @rule(deeds=deeds)
    def fork_child(self, deeds: list[tuple[Any, ...]]) -> None:
        self.done["forks"] += 1
        before = fdinfo_lines(self.ep), self.ep.stats()
        assert in_child(partial(self.live_on, deeds)) == ""
        assert (fdinfo_lines(self.ep), self.ep.stats()) == before, "nothing that a child does is seen here"

    def live_on(self, deeds: list[tuple[Any, ...]], used: bool = False) -> None:
        """What the child does. A copy that it has not used stays as it is."""
        for number, (deed, *arguments) in enumerate(deeds, 1):
            if deed == "fork":
                assert in_child(partial(self.live_on, deeds[number:])) == ""
                break
            if not used and deed not in ("open_new", "open_duplicate", "close"):
                used = True
                self.inherit()
            getattr(self, deed)(*arguments)
            self.agrees_with_the_model()
            if used:
                self.agrees_with_the_kernel()

    def inherit(self) -> None:
        """A copy gets its instance: without the numbers that are closed, and of what has them now."""
        self.entries = {fd: entry for fd, entry in self.entries.items() if fd in self.open}
        for fd, entry in self.entries.items():
            entry.file, entry.edge = self.open[fd], True
        self.ghosts = False

    @invariant()
    def counts_steps(self) -> None:
        self.steps += 1
        self.done["steps"] += 1

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
                mask = entry.mask if entry.armed else entry.mask & (Event.ONESHOT | Event.ET)
                assert (fd, mask | IMPLIED) in known or not entry.sure
        if not self.ghosts:
            assert {fd for fd, _ in known} == set(self.entries)


@pytest.mark.lasts(3600)
# In parts, each of which has the time of a test: a debug build under load needs it.
@pytest.mark.parametrize("part", range(4))
def test_walks(part: int, effort: Effort, show: Callable[[str], None]) -> None:
    Walk.done.clear()
    walks = settings(
        # A sanitizer looks at what each step does, and takes five times as long over it.
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
