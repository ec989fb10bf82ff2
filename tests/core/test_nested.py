"""An epoll that watches an Epoll goes on reporting it through rebuilds, changes, closes and forks."""

import asyncio
import contextlib
import errno
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from support.effort import Effort
from support.fds import open_fds
from support.kernel import agree, fdinfo, fdinfo_lines, rebuild, stale_registration
from support.processes import begin, end, in_child
from support.threads import until

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]

KINDS = [Event.IN, Event.IN | Event.ET, Event.IN | Event.ONESHOT]
outers = pytest.mark.parametrize("outer_type", [pyepoll.Epoll, select.epoll], ids=["pyepoll", "stock"])
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture
def inner() -> Iterator[Epoll]:
    with Epoll() as inner:
        yield inner


def reports(outer: Any, inner: Epoll, live: int, kind: int = Event.IN) -> bool:
    """Whether the outer one reports the inner one because of the live fd, and the inner one the live fd."""
    while outer.poll(0) and kind != Event.IN:
        pass
    assert outer.poll(0) == []
    if kind & Event.ONESHOT:
        outer.modify(inner.fileno(), int(kind))
    os.eventfd_write(live, 1)
    reported = [fd for fd, _ in outer.poll(5)]
    events = inner.poll(0)
    os.eventfd_read(live)
    return reported == [inner.fileno()] and events == [(live, Event.IN)]


# Rebuilds.


@outers
@kinds
def test_events_are_reported_through_rebuilds_of_the_inner(
    inner: Epoll, eventfd: Eventfd, outer_type: Any, kind: Event
) -> None:
    live = eventfd()
    inner.register(live, Event.IN)
    with outer_type() as outer:
        outer.register(inner.fileno(), int(kind))
        watched = fdinfo(outer)
        for _ in range(5):
            assert reports(outer, inner, live, kind)
            rebuild(inner)
            if not kind & Event.ONESHOT:
                assert fdinfo(outer) == watched
        assert reports(outer, inner, live, kind)


@kinds
def test_events_are_reported_through_rebuilds_of_the_outer(
    ep: Epoll, inner: Epoll, eventfd: Eventfd, kind: Event
) -> None:
    live = eventfd()
    inner.register(live, Event.IN)
    ep.register(inner.fileno(), kind)
    for _ in range(5):
        assert reports(ep, inner, live, kind)
        rebuild(ep)
    assert reports(ep, inner, live, kind)
    assert ep.stats().lost_registrations == inner.stats().lost_registrations == 0


def test_events_are_reported_to_an_asyncio_loop_through_rebuilds(inner: Epoll, eventfd: Eventfd) -> None:
    live = eventfd()
    inner.register(live, Event.IN)
    seen: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(inner.fileno(), lambda: seen.extend(inner.poll(0)))
        for _ in range(5):
            with stale_registration(inner):
                rebuilds = inner.stats().rebuilds
                async with asyncio.timeout(10):
                    while inner.stats().rebuilds == rebuilds:
                        await asyncio.sleep(0.001)
            seen.clear()
            os.eventfd_write(live, 1)
            async with asyncio.timeout(10):
                while (live, Event.IN) not in seen:
                    await asyncio.sleep(0.001)
            os.eventfd_read(live)
        loop.remove_reader(inner.fileno())

    asyncio.run(main())


@pytest.mark.parametrize("rebuilt", [0, 1, 2])
def test_events_are_reported_through_three_levels(eventfd: Eventfd, rebuilt: int) -> None:
    live = eventfd()
    with Epoll() as top, Epoll() as middle, Epoll() as bottom:
        bottom.register(live, Event.IN, "live")
        middle.register(bottom, Event.IN, "bottom")
        top.register(middle, Event.IN, "middle")
        for _ in range(3):
            rebuild([top, middle, bottom][rebuilt])
            assert top.poll(0) == middle.poll(0) == bottom.poll(0) == []
            os.eventfd_write(live, 1)
            assert top.poll(5) == [("middle", Event.IN)]
            assert middle.poll(0) == [("bottom", Event.IN)]
            assert bottom.poll(0) == [("live", Event.IN)]
            os.eventfd_read(live)


@outers
def test_an_epoll_is_reported_to_two_watchers(inner: Epoll, eventfd: Eventfd, outer_type: Any) -> None:
    live = eventfd()
    inner.register(live, Event.IN)
    with outer_type() as first, pyepoll.Epoll[Any]() as second:
        first.register(inner.fileno(), select.EPOLLIN)
        second.register(inner.fileno(), select.EPOLLIN | select.EPOLLET)
        for _ in range(3):
            rebuild(inner)
            second.poll(0)
            assert first.poll(0) == second.poll(0) == []
            os.eventfd_write(live, 1)
            assert first.poll(5) == second.poll(5) == [(inner.fileno(), Event.IN)]
            os.eventfd_read(live)
        first.close()
        rebuild(inner)
        second.poll(0)
        os.eventfd_write(live, 1)
        assert second.poll(5) == [(inner.fileno(), Event.IN)]


@outers
def test_a_duplicate_of_the_fd_is_reported(inner: Epoll, eventfd: Eventfd, outer_type: Any) -> None:
    live = eventfd()
    inner.register(live, Event.IN)
    duplicate = os.dup(inner.fileno())
    with outer_type() as outer:
        outer.register(duplicate, select.EPOLLIN)
        for _ in range(3):
            rebuild(inner)
            assert outer.poll(0) == []
            os.eventfd_write(live, 1)
            assert outer.poll(5) == [(duplicate, select.EPOLLIN)]
            os.eventfd_read(live)
        assert inner.fileno() != duplicate
        # The instance that the duplicate keeps open when the Epoll is closed watches nothing.
        os.eventfd_write(live, 1)
        inner.close()
        assert outer.poll(0) == []
    os.close(duplicate)


def test_a_live_entry_beside_a_stale_one_of_the_same_fd_is_reported(ep: Epoll, eventfd: Eventfd) -> None:
    """The fd was that of another epoll, closed without unregister, with a duplicate that is ready."""
    live, ready = eventfd(), eventfd(1)
    for _ in range(4):
        first = select.epoll()
        first.register(ready, select.EPOLLIN)
        fd = first.fileno()
        ep.register(fd, Event.IN, "first")
        duplicate = os.dup(fd)
        first.close()
        with Epoll() as inner:
            inner.register(live, Event.IN)
            number = inner.fileno()
            assert number == fd
            ep.register(inner, Event.IN, "inner")
            rebuild(inner)
            assert ep.poll(0) == []
            os.eventfd_write(live, 1)
            assert ep.poll(5) == [("inner", Event.IN)]
            assert agree(ep)
            os.eventfd_read(live)
            ep.unregister(inner)
        os.close(duplicate)


# Changes in threads.


def modify(outer: Any, inner: Epoll) -> None:
    outer.modify(inner.fileno(), select.EPOLLIN)


def rearm(outer: Any, inner: Epoll) -> None:
    outer.rearm(inner)


def register_again(outer: Any, inner: Epoll) -> None:
    outer.unregister(inner.fileno())
    outer.register(inner.fileno(), select.EPOLLIN)


def rebuild_outer(outer: Any, inner: Epoll) -> None:
    with stale_registration(outer):
        outer.poll(0)
        outer.poll(0)


@pytest.mark.parametrize(
    ("outer_type", "change"),
    [
        (pyepoll.Epoll, modify),
        (pyepoll.Epoll, rearm),
        (pyepoll.Epoll, register_again),
        (pyepoll.Epoll, rebuild_outer),
        (select.epoll, modify),
        (select.epoll, register_again),
    ],
    ids=lambda value: value.__module__.partition(".")[0] if isinstance(value, type) else value.__name__,
)
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.lasts(60)
def test_the_outer_can_be_changed_during_rebuilds_of_the_inner(
    inner: Epoll, pool: ThreadPoolExecutor, eventfd: Eventfd, outer_type: Any, change: Any, effort: Effort
) -> None:
    """None fails, and the inner one is still reported after them."""
    for fd in [eventfd() for _ in range(100)]:
        inner.register(fd, Event.IN)
    live = eventfd()
    inner.register(live, Event.IN)
    over = threading.Event()

    def changes(outer: Any) -> int:
        count = 0
        while not over.is_set():
            change(outer, inner)
            count += 1
        return count

    with outer_type() as outer:
        outer.register(inner.fileno(), select.EPOLLIN)
        changing = pool.submit(changes, outer)
        try:
            for _ in range(effort(15, 1000)):
                rebuild(inner)
        finally:
            over.set()
        assert changing.result() > 0
        for _ in range(3):
            outer.poll(0)
        os.eventfd_write(live, 1)
        assert [mask for _, mask in outer.poll(5)] == [select.EPOLLIN]
        assert [fd for fd, _, _ in fdinfo_lines(outer)] == [inner.fileno()]


@pytest.mark.usefixtures("fast_switching")
@pytest.mark.lasts(60)
def test_either_level_can_be_closed_while_both_are_used(pool: ThreadPoolExecutor, effort: Effort) -> None:
    """No thread waits indefinitely, and no exception but those of the closing is raised."""
    for turn in range(effort(40, 2000)):
        outer, inner, shared = Epoll(), Epoll(), Epoll()
        fds = [os.eventfd(1) for _ in range(20)]
        for fd in fds:
            inner.register(fd, Event.IN)
        shared.register(inner.fileno(), Event.IN)
        outer.register(inner, Event.IN)
        outer.register(shared, Event.IN)
        barrier = threading.Barrier(6)

        def use(deed: Callable[[], object], barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with contextlib.suppress(ValueError):  # closed
                while True:
                    try:
                        deed()
                    except OSError as error:
                        # The inner fd is closed, or reused by the threads.
                        assert error.errno in (
                            errno.EBADF,
                            errno.ENOENT,
                            errno.EEXIST,
                            errno.EPERM,
                            errno.EINVAL,
                            errno.ELOOP,
                        )
                        return

        uses = [
            pool.submit(use, partial(outer.poll, 0.001)),
            pool.submit(use, partial(rebuild_outer, inner, inner)),
            pool.submit(use, partial(rebuild_outer, outer, inner)),
            pool.submit(use, lambda outer=outer, inner=inner: modify(outer, inner)),  # type: ignore[misc]
            pool.submit(use, partial(shared.poll, 0.001)),
        ]
        barrier.wait()
        time.sleep(turn % 4 / 2000)
        closes = [outer.close, inner.close, shared.close]
        closing = [pool.submit(close) for close in closes[turn % 3 :] + closes[: turn % 3]]
        for each in closing + uses:
            each.result(20)
        for fd in fds:
            os.close(fd)


# Forks.


def work_in_the_child(epolls: list[Epoll], first: int, live: int) -> None:
    """Use one of them first; from the outermost to the innermost, all report the live fd."""
    if first >= 0:
        epolls[first].poll(0)
    for ep in epolls:
        assert len(ep.poll(5)) == 1
    rebuild(epolls[-1])
    for ep in epolls:
        assert len(ep.poll(0)) == 1
        assert agree(ep)
    epolls[-1].unregister(live)
    for ep in epolls:
        assert ep.poll(0) == []


@pytest.mark.parametrize("first", [-1, 0, 1, 2])
@pytest.mark.parametrize("depth", [2, 3])
def test_copies_in_a_child_watch_each_other(eventfd: Eventfd, depth: int, first: int) -> None:
    """Whichever is used first; and the parent's are as they were."""
    live = eventfd(1)
    with contextlib.ExitStack() as stack:
        epolls = [stack.enter_context(Epoll()) for _ in range(depth)]
        if first >= depth:
            pytest.skip("no such level")
        epolls[-1].register(live, Event.IN)
        for outer, inner in itertools.pairwise(epolls):
            outer.register(inner, Event.IN)
        before = [fdinfo_lines(ep) for ep in epolls]
        assert in_child(partial(work_in_the_child, epolls, first, live)) == ""
        assert [fdinfo_lines(ep) for ep in epolls] == before
        for ep in epolls:
            assert len(ep.poll(0)) == 1
        os.eventfd_read(live)
        for ep in epolls:
            assert ep.poll(0) == []


@pytest.mark.parametrize("use", ["poll", "close"])
@pytest.mark.parametrize("rebuilt", [0, 1])
def test_a_child_has_its_copies_though_the_parent_rebuilds(eventfd: Eventfd, rebuilt: int, use: str) -> None:
    """The parent's rebuild takes the entry out of the front, which is the child's, too."""
    live = eventfd(1)
    hold, release = os.pipe()
    with Epoll() as outer, Epoll() as inner:
        inner.register(live, Event.IN)
        outer.register(inner, Event.IN)
        assert outer.fileno() >= 0

        def child() -> None:
            assert os.read(hold, 1) == b"x"
            if use == "poll":
                work_in_the_child([outer, inner], -1, live)
            inner.close()
            outer.close()
            assert "anon_inode:[eventpoll]" not in open_fds().values()

        begun = begin(child)
        rebuild((outer, inner)[rebuilt])
        os.write(release, b"x")
        assert end(*begun) == ""
        assert len(outer.poll(0)) == len(inner.poll(0)) == 1
    os.close(hold)
    os.close(release)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_copies_of_two_epolls_that_watch_a_third_report_it(eventfd: Eventfd, first: int) -> None:
    live = eventfd(1)
    with Epoll() as left, Epoll() as right, Epoll() as inner:
        inner.register(live, Event.IN)
        left.register(inner, Event.IN)
        right.register(inner, Event.IN | Event.ET)
        right.poll(0)

        def child() -> None:
            (left, right, inner)[first].poll(0)
            assert len(left.poll(5)) == len(inner.poll(5)) == 1
            inner.unregister(live)
            right.poll(0)
            assert left.poll(0) == right.poll(0) == []
            inner.register(live, Event.IN)
            assert len(left.poll(5)) == len(right.poll(5)) == 1

        assert in_child(child) == ""
        assert len(left.poll(0)) == len(inner.poll(0)) == 1
        assert right.poll(0) == []


def test_a_child_closes_the_copies_unused(eventfd: Eventfd) -> None:
    live = eventfd(1)
    with Epoll() as outer, Epoll() as inner:
        inner.register(live, Event.IN)
        outer.register(inner, Event.IN)

        def child() -> None:
            inner.close()
            outer.close()

        assert in_child(child) == ""
        assert len(outer.poll(0)) == len(inner.poll(0)) == 1


def test_nesting_too_deep_is_refused_with_its_cause() -> None:
    with contextlib.ExitStack() as stack:
        epolls = [stack.enter_context(Epoll()) for _ in range(4)]
        with pytest.raises(OSError, match=r"nest") as caught:  # noqa: PT012
            for inner, outer in itertools.pairwise(epolls):
                outer.register(inner, Event.IN)
                rebuild(outer)
        assert caught.value.errno == errno.ELOOP
        for ep in epolls:
            assert agree(ep)
            rebuild(ep)


def outers_up_to_the_limit(inner: Epoll) -> list[Epoll]:
    """Let Epolls watch `inner` until the kernel refuses one more, as it does after 100 of this depth."""
    made: list[Epoll] = []
    try:
        while len(made) < 1000:
            made.append(Epoll())
            made[-1].register(inner, Event.IN, "inner")
    except OSError as error:
        assert error.errno == errno.EINVAL
        assert "too many epolls watch it or its files" in str(error)
        made.pop().close()
        return made
    raise AssertionError("no limit")


def test_limit_of_wakeup_paths_loses_no_nested_registration(inner: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd()
    inner.register(fd, Event.IN)
    outers = outers_up_to_the_limit(inner)
    try:
        outer = outers[0]
        with stale_registration(outer):
            until(lambda: outer.poll(0) is not None and outer.stats().failed_rebuilds > 0)
            assert outer.stats().lost_registrations == 0
            os.eventfd_write(fd, 1)
            assert outer.poll(1) == [("inner", Event.IN)]
            outers.pop().close()
            until(lambda: outer.poll(0) is not None and outer.stats().rebuilds > 0)
            assert outer.poll(0) == [("inner", Event.IN)]
    finally:
        for each in outers:
            each.close()


def test_a_forked_copy_reports_the_limit_of_wakeup_paths(inner: Epoll, eventfd: Eventfd) -> None:
    inner.register(eventfd(1), Event.IN)
    outers = outers_up_to_the_limit(inner)

    def child() -> None:
        with pytest.raises(OSError, match="too many epolls watch its nested epolls or their files") as info:
            outers[0].poll(0)
        assert info.value.errno == errno.EINVAL
        assert outers[0].stats().lost_registrations == 0

    try:
        assert in_child(child) == ""
    finally:
        for each in outers:
            each.close()


def test_an_instance_fd_is_not_taken_for_a_closed_file(inner: Epoll) -> None:
    before = open_fds()
    fd = os.eventfd(1)
    inner.register(fd, Event.IN)
    os.close(fd)
    inner.fileno()
    assert inner._instance_fd() == fd, "the instance has moved to the lowest fd"
    calls = partial(inner.modify, fd, Event.IN), partial(inner.rearm, fd), partial(inner.unregister, fd)
    for call in calls:
        with pytest.raises(FileNotFoundError):
            call()
    assert len(inner) == 0
    assert set(open_fds()) == {*before, fd}
