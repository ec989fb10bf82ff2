"""With always_ready=True, files that the kernel refuses to poll are registered, and always ready."""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import random
import select
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.fds import Pipe, no_fd_left, open_fds
from support.kernel import IMPLIED, fdinfo, fdinfo_lines, rebuild
from support.leaks import leaks
from support.processes import in_child, run
from support.seccomp import denied
from support.threads import until

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Open = Callable[..., int]

POLLABLE = Event.IN | Event.OUT | Event.RDNORM | Event.WRNORM
"""What poll(2) reports of a file that cannot be polled: DEFAULT_POLLMASK in linux/poll.h."""


@pytest.fixture
def ep(pool: ThreadPoolExecutor) -> Iterator[Epoll]:
    with pyepoll.Epoll[Any](always_ready=True) as ep:
        yield ep


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[Open]:
    """Open regular files, each another one unless named, closed at the end if they still are open."""
    opened: list[int] = []

    def open_file(name: str | None = None) -> int:
        path = tmp_path / (f"file {len(opened)}" if name is None else name)
        opened.append(os.open(path, os.O_RDWR | os.O_CREAT))
        return opened[-1]

    yield open_file
    for fd in set(opened) & set(open_fds()):
        os.close(fd)


@pytest.fixture
def file(open_file: Open) -> int:
    return open_file()


def replace(fd: int, other: int) -> None:
    """Close an fd and give it to another file, which is closed under its own fd."""
    os.dup2(other, fd)
    os.close(other)


def kernel(ep: Any) -> Counter[tuple[int, int]]:
    """The kernel's list: how often it has (fd of the registration, mask)."""
    return Counter((data & 0xFFFFFFFF, events & ~IMPLIED) for events, data in fdinfo(ep).values())


def agrees(ep: Epoll) -> bool:
    """Whether the kernel has an entry for each registration, with its mask, and no other."""
    return kernel(ep) == Counter((fd, int(mask)) for fd, (mask, _) in ep.registrations.items())


# Which files, and which events.


@pytest.mark.parametrize("path", [__file__, "/", os.devnull, "/dev/zero", "/dev/urandom", "/proc/self/stat"])
def test_a_file_that_the_kernel_refuses_is_reported_as_poll_reports_it(ep: Epoll, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    everything = Event.IN | Event.PRI | Event.OUT | POLLABLE | Event.RDBAND | Event.WRBAND | Event.RDHUP
    poll = select.poll()
    try:
        poll.register(fd, int(everything))
        ep.register(fd, everything, path)
        assert ep.poll(0) == [(path, POLLABLE)] == [(path, poll.poll(0)[0][1])]
    finally:
        os.close(fd)


def test_it_is_off_by_default(file: int) -> None:
    for options in ({}, {"always_ready": False}):
        with pyepoll.Epoll[Any](**options) as ep:
            for step in (ep.register, ep.unregister):
                with pytest.raises(PermissionError):
                    step(file)
            assert len(ep) == 0
    with pyepoll.EpollSelector() as selector, pytest.raises(PermissionError):
        selector.register(file, selectors.EVENT_READ)


def test_the_option_is_given_by_name() -> None:
    with pytest.raises(TypeError):
        pyepoll.Epoll(-1, 0, True)  # type: ignore[call-arg]


def test_files_that_can_be_polled_are_not_touched(ep: Epoll, pipe: Pipe) -> None:
    before = open_fds()
    ep.register(pipe.read, Event.IN, "pipe")
    assert open_fds() == before
    assert ep.poll(0) == []
    assert ep.registrations[pipe.read] == (Event.IN, "pipe")


@pytest.mark.parametrize(
    ("mask", "reported"),
    [
        (Event.IN, Event.IN),
        (Event.OUT, Event.OUT),
        (Event.IN | Event.OUT, Event.IN | Event.OUT),
        (Event.RDNORM, Event.RDNORM),
        (Event.WRNORM | Event.IN, Event.WRNORM | Event.IN),
        (Event.IN | Event.PRI | Event.RDHUP | Event.RDBAND | Event.WRBAND | Event.ERR | Event.HUP, Event.IN),
        (Event.PRI | Event.RDHUP, None),
        (Event(0), None),
    ],
)
@pytest.mark.parametrize("how", [Event(0), Event.ET, Event.ONESHOT])
def test_only_the_requested_events_are_reported(
    ep: Epoll, file: int, mask: Event, reported: Event | None, how: Event
) -> None:
    ep.register(file, mask | how, "file")
    assert ep.poll(0) == ([] if reported is None else [("file", reported)])
    assert ep.registrations[file] == (mask | how, "file")


def test_a_changed_mask_is_reported_at_once(ep: Epoll, file: int) -> None:
    for mask in (Event.IN, Event.IN | Event.RDNORM, Event.OUT, Event.OUT | Event.WRNORM, Event.WRNORM):
        ep.register(file, mask) if file not in ep else ep.modify(file, mask)
        assert ep.poll(0) == [(file, mask)]


# How often.


def test_level_reports_at_each_wait_and_no_wait_sleeps(ep: Epoll, file: int) -> None:
    ep.register(file, Event.IN, "file")
    events = [("file", Event.IN)]
    assert [ep.poll(), list(ep.wait()), list(itertools.islice(ep, 3))] == [events, events, events * 3]
    assert ep.poll(None, 1) == events


def test_edge_reports_once_for_each_arming(ep: Epoll, file: int) -> None:
    mask = Event.IN | Event.ET
    arms: list[Callable[[], object]] = [
        lambda: ep.register(file, mask, "file"),
        lambda: ep.modify(file, mask),
        lambda: ep.rearm(file),
    ]
    for arm in arms:
        arm()
        assert ep.poll(0) == [("file", Event.IN)]
        assert ep.poll(0) == []


def test_a_oneshot_reports_once_until_it_is_armed(ep: Epoll, file: int) -> None:
    mask = Event.IN | Event.ONESHOT
    arms: list[Callable[[], object]] = [
        lambda: ep.register(file, mask, "file"),
        lambda: ep.rearm(file),
        lambda: ep.modify(file, mask),
    ]
    for arm in arms:
        arm()
        assert ep.poll(0) == [("file", Event.IN)]
        assert ep.poll(0) == []


@pytest.mark.parametrize("how", [Event.ET, Event.ONESHOT, Event.ET | Event.EXCLUSIVE])
def test_an_event_that_was_not_handed_out_is_reported_again(ep: Epoll, open_file: Open, how: Event) -> None:
    for name in "ab":
        ep.register(open_file(), Event.IN | how, name)
    first = next(iter(ep.wait(0)))
    (second,) = ep.poll(0)
    assert {first[0], second[0]} == {"a", "b"}
    assert ep.poll(0) == []


def test_exclusive_has_the_kernels_rules(ep: Epoll, file: int) -> None:
    with pytest.raises(OSError, match="EXCLUSIVE cannot be combined with PRI") as raised:
        ep.register(file, Event.IN | Event.PRI | Event.EXCLUSIVE)
    assert raised.value.errno == errno.EINVAL
    assert len(ep) == 0
    assert agrees(ep)
    ep.register(file, Event.IN | Event.EXCLUSIVE, "file")
    with pytest.raises(OSError, match="EXCLUSIVE cannot be modified or rearmed") as raised:
        ep.rearm(file)
    assert raised.value.errno == errno.EINVAL
    assert ep.poll(0) == [("file", Event.IN)]


def test_wakeup_is_as_of_other_files(ep: Epoll, file: int, pipe: Pipe) -> None:
    for fd in (file, pipe.read):
        ep.register(fd, Event.IN | Event.WAKEUP)
    assert ep.registrations[file][0] == ep.registrations[pipe.read][0]
    assert ep.poll(0) == [(file, Event.IN)]


@pytest.mark.parametrize("maxevents", [1, 2])
def test_neither_files_nor_sockets_starve(
    ep: Epoll, open_file: Open, eventfd: Callable[..., int], maxevents: int
) -> None:
    expected = set()
    for _ in range(4):
        for fd in (open_file(), eventfd(1)):
            ep.register(fd, Event.IN, fd)
            expected.add(fd)
    seen = Counter(fd for _ in range(80) for fd, _ in ep.poll(0, maxevents))
    assert seen.keys() == expected
    assert set(seen.values()) == {80 * maxevents // len(expected)}


@pytest.mark.parametrize("how", [Event.ET, Event.ONESHOT])
def test_two_threads_share_an_edge_and_a_oneshot(ep: Epoll, open_file: Open, how: Event) -> None:
    fds = [open_file() for _ in range(50)]
    seen: list[int] = []
    barrier = threading.Barrier(3)

    def collect() -> None:
        barrier.wait()
        while events := ep.poll(0, 1):
            seen.extend(fd for fd, _ in events)

    threads = [threading.Thread(target=collect) for _ in range(2)]
    for thread in threads:
        thread.start()
    for fd in fds:
        ep.register(fd, Event.IN | how)
    barrier.wait()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(fds)


# The interest list.


def test_registrations_are_as_of_other_files(ep: Epoll, file: int, pipe: Pipe) -> None:
    data = object()
    ep.register(pipe.read, Event.IN)
    ep.register(file, Event.IN | Event.ET, data)
    assert len(ep) == 2
    assert file in ep
    assert ep.registrations[file] == (Event.IN | Event.ET, data)
    assert list(ep.registrations) == sorted([file, pipe.read])
    assert agrees(ep)
    other = object()
    ep.modify(file, Event.OUT, other)
    assert ep.registrations[file] == (Event.OUT, other)
    assert ep.poll(0) == [(other, Event.OUT)]
    assert agrees(ep)
    ep.unregister(file)
    assert file not in ep
    assert len(ep) == 1
    assert ep.poll(0) == []
    assert agrees(ep)


def refused(step: Callable[[], object], error: int) -> None:
    with pytest.raises(OSError) as raised:
        step()
    assert raised.value.errno == error


def test_errors_are_those_of_other_files(ep: Epoll, file: int) -> None:
    for step in (lambda: ep.unregister(file), lambda: ep.modify(file, Event.IN), lambda: ep.rearm(file)):
        refused(step, errno.ENOENT)
    ep.register(file, Event.IN, "first")
    refused(lambda: ep.register(file, Event.OUT, "second"), errno.EEXIST)
    assert ep.registrations[file] == (Event.IN, "first")
    assert ep.poll(0) == [("first", Event.IN)]
    assert agrees(ep)
    ep.unregister(file)
    refused(lambda: ep.unregister(file), errno.ENOENT)


def test_a_sandbox_is_not_taken_for_a_file_that_cannot_be_polled(
    ep: Epoll, open_file: Open, pipe: Pipe
) -> None:
    file = open_file()
    ep.register(pipe.read, Event.IN, "pipe")
    ep.register(file, Event.IN, "file")
    before = open_fds()

    def try_all() -> None:
        other = os.dup(file)
        steps: list[Callable[[], object]] = [
            lambda: ep.register(other, Event.IN),
            lambda: ep.modify(pipe.read, Event.IN),
            lambda: ep.modify(file, Event.OUT),
            lambda: ep.rearm(file),
        ]
        for step in steps:
            with pytest.raises(PermissionError, match="forbidden, by a seccomp filter"):
                step()
        os.close(other)

    assert denied(try_all, errno.EPERM, "epoll_ctl") is None
    assert ep.registrations == {pipe.read: (Event.IN, "pipe"), file: (Event.IN, "file")}
    assert agrees(ep)
    assert open_fds() == before


def test_unregistering_in_the_loop_drops_the_event(ep: Epoll, open_file: Open) -> None:
    fds = [open_file() for _ in range(2)]
    for fd in fds:
        ep.register(fd, Event.IN, fd)
    seen = []
    for fd, _ in ep.wait(0):
        seen.append(fd)
        for other in fds:
            if other != fd:
                ep.unregister(other)
    assert len(seen) == 1


def test_nothing_is_left_open(file: int) -> None:
    def use() -> None:
        with pyepoll.Epoll[Any](always_ready=True) as ep:
            ep.register(file, Event.IN)
            ep.unregister(file)
            ep.register(file, Event.IN)
            ep.modify(file, Event.OUT | Event.ET)
            ep.poll(0)

    use()
    before = open_fds()
    assert leaks(use, 200) == {}
    assert open_fds() == before


def test_a_lost_object_leaves_nothing_open(file: int) -> None:
    before = open_fds()
    ep = pyepoll.Epoll[Any](always_ready=True)
    ep.register(file, Event.IN, ep)
    del ep
    gc.collect()
    assert open_fds() == before


def test_no_fd_left_changes_nothing(ep: Epoll, file: int, pipe: Pipe) -> None:
    ep.register(pipe.read, Event.IN)
    with no_fd_left(), pytest.raises(OSError, match=rf"register fd {file} .*an eventfd") as raised:
        ep.register(file, Event.IN, "file")
    assert raised.value.errno == errno.EMFILE
    assert list(ep.registrations) == [pipe.read]
    assert agrees(ep)
    ep.register(file, Event.IN, "file")
    assert ep.poll(0) == [("file", Event.IN)]


def test_no_memory_changes_nothing(open_file: Open) -> None:
    without_memory = pytest.importorskip("support.no_memory").without_memory
    fds = [open_file() for _ in range(6)]
    for start in itertools.count():
        with pyepoll.Epoll[Any](always_ready=True) as ep:
            for fd in fds[:4]:
                ep.register(fd, Event.IN)
            before = open_fds()
            if without_memory(start, lambda: ep.register(fds[4], Event.IN)):
                break
            assert fds[4] not in ep
            assert agrees(ep)
            assert open_fds() == before
            ep.register(fds[4], Event.IN)
            assert len(ep.poll(0)) == 5
    assert start > 0


def test_changes_by_threads_leave_both_lists_agreed(ep: Epoll, open_file: Open, fast_switching: None) -> None:
    """Threads change the same registrations, of fds that are now a regular file and now an eventfd."""
    fds = [open_file() for _ in range(3)]
    other, ready = open_file(), os.eventfd(1)
    before = len(open_fds())
    masks = [Event.IN, Event.OUT | Event.ET, Event.IN | Event.ONESHOT]
    deeds: list[Callable[[int, Event], object]] = [
        lambda fd, mask: ep.register(fd, mask),
        lambda fd, mask: ep.modify(fd, mask),
        lambda fd, mask: ep.rearm(fd),
        lambda fd, mask: ep.unregister(fd),
        lambda fd, mask: ep.poll(0),
        lambda fd, mask: next(ep.wait(0), None),
        lambda fd, mask: os.dup2(ready if mask is Event.IN else other, fd),
    ]

    def change(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(400):
            try:
                choose.choice(deeds)(choose.choice(fds), choose.choice(masks))
            except OSError as error:
                assert error.errno in (errno.EEXIST, errno.ENOENT)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(change, range(4)))
    for fd in fds:
        with contextlib.suppress(FileNotFoundError):
            ep.unregister(fd)
    assert len(ep) == 0
    assert len(open_fds()) == before
    # Stale registrations of the eventfd end with it; others there must not be.
    for fd in (*fds, ready):
        os.close(fd)
    assert fdinfo(ep) == {}


# fds that are closed without unregister, and reused.


def test_no_event_comes_once_the_fd_is_closed(ep: Epoll, file: int) -> None:
    before = open_fds()
    ep.register(file, Event.IN, "file")
    for _ in range(20):
        assert ep.poll(0) == [("file", Event.IN)]
    os.close(file)
    del before[file]
    assert ep.poll(0) == []
    assert len(ep) == 0
    assert ep.stats().lost_registrations == 1
    assert ep.stats().stale_events == 0
    assert agrees(ep)
    assert open_fds() == before


@pytest.mark.parametrize("new", ["regular file", "eventfd"])
def test_no_event_comes_once_the_fd_is_another_file(ep: Epoll, file: int, open_file: Open, new: str) -> None:
    ep.register(file, Event.IN, "file")
    replace(file, open_file() if new == "regular file" else os.eventfd(1))
    assert ep.poll(0) == []
    assert len(ep) == 0


@pytest.fixture
def ready(eventfd: Callable[..., int]) -> int:
    return eventfd(1)


def test_a_reused_fd_is_registered_as_the_new_file(ep: Epoll, file: int, open_file: Open, ready: int) -> None:
    before = len(open_fds())
    ep.register(file, Event.IN, "file")
    replace(file, open_file())
    ep.register(file, Event.OUT, "other file")
    assert ep.poll(0) == [("other file", Event.OUT)]
    assert agrees(ep)
    os.dup2(ready, file)
    ep.register(file, Event.IN, "eventfd")
    assert ep.poll(0) == [("eventfd", Event.IN)]
    assert agrees(ep)
    replace(file, open_file())
    ep.register(file, Event.IN, "third file")
    assert ep.registrations[file] == (Event.IN, "third file")
    # The eventfd is kept open by `ready`: a stale registration, which the next waits repair.
    until(lambda: ep.poll(0) == [("third file", Event.IN)] and agrees(ep))
    ep.unregister(file)
    assert len(open_fds()) == before


@pytest.mark.parametrize("step", ["modify", "rearm", "unregister"])
@pytest.mark.parametrize("new", ["regular file", "eventfd", "closed"])
def test_a_change_to_a_reused_fd_raises_and_ends_the_registration(
    ep: Epoll, file: int, open_file: Open, ready: int, step: str, new: str
) -> None:
    ep.register(file, Event.IN, "file")
    if new == "closed":
        os.close(file)
    elif new == "regular file":
        replace(file, open_file())
    else:
        os.dup2(ready, file)
    change = {"modify": lambda: ep.modify(file, Event.OUT), "rearm": lambda: ep.rearm(file)}.get(
        step, lambda: ep.unregister(file)
    )
    refused(change, errno.EBADF if new == "closed" else errno.ENOENT)
    assert len(ep) == 0
    assert fdinfo(ep) == {}
    assert ep.poll(0) == []


def test_an_unrelated_file_becomes_a_regular_one(ep: Epoll, file: int, eventfd: Callable[..., int]) -> None:
    fd = os.eventfd(1)
    ep.register(fd, Event.IN, "eventfd")
    os.dup2(file, fd)
    refused(lambda: ep.modify(fd, Event.IN), errno.ENOENT)
    assert len(ep) == 0
    ep.register(fd, Event.IN, "file")
    assert ep.poll(0) == [("file", Event.IN)]
    os.close(fd)


def test_a_stand_in_with_the_fd_of_a_stale_registration_is_kept(ep: Epoll, file: int) -> None:
    """The repair must not take the one for the other, which has the fd that the kernel's entry names."""
    closed = os.eventfd(1)
    ep.register(closed, Event.IN, "closed")
    kept = os.dup(closed)
    os.close(closed)
    with pytest.raises(OSError):
        ep.unregister(closed)
    ep.register(file, Event.IN, "file")
    assert [fd for fd, _, _ in fdinfo_lines(ep)] == [closed, closed]  # the stale one and the stand-in
    for _ in range(3):
        assert ep.poll(0) == [("file", Event.IN)]
    assert ep.stats().rebuilds == 1
    os.close(kept)


def test_a_registered_stand_in_is_refused(ep: Epoll, file: int) -> None:
    """The eventfd belongs to the Epoll alone: its fd can be neither registered nor removed."""
    ep.register(file, Event.IN, "file")
    (own,) = fdinfo(ep)
    assert own != file
    refused(lambda: ep.register(own, Event.IN), errno.EEXIST)
    for step in (lambda: ep.modify(own, Event.IN), lambda: ep.unregister(own), lambda: ep.rearm(own)):
        refused(step, errno.ENOENT)
    assert ep.poll(0) == [("file", Event.IN)]


def test_a_stand_in_closed_by_others_is_no_other_file(ep: Epoll, file: int) -> None:
    """A daemon closes all fds, and others have the numbers: close() and unregister leave those alone."""
    ep.register(file, Event.IN, "file")
    (own,) = fdinfo(ep)
    read, write = os.pipe2(os.O_NONBLOCK)
    os.dup2(read, own)
    ep.register(own, Event.IN, "pipe")
    os.write(write, b"x")
    assert ep.poll(0) == [("pipe", Event.IN)]
    refused(lambda: ep.modify(file, Event.IN), errno.ENOENT)
    ep.close()
    assert os.read(own, 2) == b"x"
    for fd in (own, read, write):
        os.close(fd)


def test_a_stand_in_closed_by_others_is_no_other_stand_in(ep: Epoll, open_file: Open) -> None:
    """The stand-in of another file gets its number."""
    fds = [open_file() for _ in range(3)]
    ep.register(fds[1], Event.IN, "first")
    (own,) = fdinfo(ep)
    os.close(own)
    ep.register(fds[0], Event.IN, "second")
    ep.register(fds[2], Event.IN, "third")
    assert own in fdinfo(ep)
    ep.unregister(fds[1])
    assert sorted(ep.poll(0)) == [("second", Event.IN), ("third", Event.IN)]
    refused(lambda: ep.register(own, Event.IN), errno.EEXIST)
    ep.unregister(fds[0])
    assert ep.poll(0) == [("third", Event.IN)]
    assert agrees(ep)


def test_many_in_any_order(ep: Epoll, open_file: Open) -> None:
    fds, choose = [open_file() for _ in range(60)], random.Random(1)
    before = len(open_fds())
    for _ in range(4):
        choose.shuffle(fds)
        for fd in fds[:40]:
            ep.register(fd, Event.IN, fd)
        assert sorted(ep.poll(0)) == sorted((fd, Event.IN) for fd in fds[:40])
        for fd in fds[30:40]:
            replace(fd, open_file())
            ep.register(fd, Event.OUT, fd)
        assert agrees(ep)
        for own in fdinfo(ep):
            refused(lambda own=own: ep.register(own, Event.IN), errno.EEXIST)  # type: ignore[misc]
        choose.shuffle(fds)
        for fd in fds:
            with contextlib.suppress(FileNotFoundError):
                ep.unregister(fd)
        assert len(open_fds()) == before


# Repairs.


def test_a_rebuild_keeps_the_registrations(ep: Epoll, open_file: Open) -> None:
    fds = [open_file() for _ in range(4)]
    masks = [Event.IN, Event.OUT | Event.ONESHOT, Event.RDNORM, Event.IN | Event.EXCLUSIVE]
    for fd, mask in zip(fds, masks, strict=True):
        ep.register(fd, mask, fd)
    ep.poll(0)
    rebuild(ep)
    assert sorted(ep.poll(0)) == [(fds[0], Event.IN), (fds[2], Event.RDNORM), (fds[3], Event.IN)]
    assert len(ep) == 4
    assert ep.stats().lost_registrations == 0
    ep.rearm(fds[1])
    assert (fds[1], Event.OUT) in ep.poll(0)
    for fd in fds:
        ep.unregister(fd)
    assert fdinfo(ep) == {}


@pytest.mark.parametrize("new", ["regular file", "closed"])
def test_a_rebuild_drops_those_whose_fd_is_another_file(ep: Epoll, open_file: Open, new: str) -> None:
    disarmed, kept = open_file(), open_file()
    before = len(open_fds())
    ep.register(disarmed, Event.IN | Event.ONESHOT, "disarmed")
    ep.register(kept, Event.IN, "kept")
    ep.poll(0)
    if new == "closed":
        os.close(disarmed)
        before -= 1
    else:
        replace(disarmed, open_file())
    rebuild(ep)
    assert list(ep.registrations) == [kept]
    assert ep.poll(0) == [("kept", Event.IN)]
    ep.unregister(kept)
    assert len(open_fds()) == before


SLOW_EPOLL_CREATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

int epoll_create1(int flags)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "epoll_create1");
    if (getenv("SLOW") != NULL) {
        usleep(300000);
    }
    return next(flags);
}
"""


def test_a_child_closes_the_epoll_while_a_thread_begins_to_use_it(
    preload: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-ins are not freed under that thread, which would find other fds in them."""
    monkeypatch.setenv("PYTHONMALLOC", "debug")
    preload(SLOW_EPOLL_CREATE)
    program = """
    import contextlib, os, threading, time
    from pyepoll import Epoll, Event
    ep = Epoll(always_ready=True)
    for _ in range(200):
        ep.register(os.open(os.devnull, os.O_RDONLY), Event.IN)
    child = os.fork()
    if child == 0:
        os.environ["SLOW"] = "1"

        def use():
            with contextlib.suppress(ValueError):
                ep.poll(0)

        thread = threading.Thread(target=use)
        thread.start()
        time.sleep(0.1)
        ep.close()
        thread.join()
        os._exit(ep.stats().lost_registrations)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(ep.poll(0)) == 200
    """
    assert run(program) == ""


# Other ways to wait.


def test_the_epolls_own_fd_is_readable_while_one_is_armed(ep: Epoll, file: int) -> None:
    def readable() -> bool:
        return select.select([ep.fileno()], [], [], 0)[0] == [ep.fileno()]

    ep.register(file, Event.IN | Event.ONESHOT, "file")
    assert readable()
    assert ep.poll(0) == [("file", Event.IN)]
    assert not readable()
    ep.rearm(file)
    assert readable()
    ep.unregister(file)
    assert not readable()


def test_an_epoll_that_watches_it_is_woken(ep: Epoll, file: int) -> None:
    with pyepoll.Epoll[Any]() as outer:
        outer.register(ep, Event.IN, "inner")
        assert outer.poll(0) == []
        ep.register(file, Event.IN, "file")
        assert outer.poll() == [("inner", Event.IN)]
        rebuild(ep)
        assert outer.poll() == [("inner", Event.IN)]
        ep.unregister(file)
        assert outer.poll(0) == []


def test_a_wait_in_another_thread_is_woken_by_register(
    ep: Epoll, file: int, pool: ThreadPoolExecutor
) -> None:
    waiting = pool.submit(ep.poll)
    until(lambda: ep.stats().waits == 1)
    ep.register(file, Event.IN, "file")
    assert waiting.result() == [("file", Event.IN)]


def test_asyncio_watches_the_epolls_fd(ep: Epoll, file: int) -> None:
    async def main() -> list[tuple[Any, Event]]:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def read() -> None:
            loop.remove_reader(ep.fileno())
            ready.set_result(ep.poll(0))

        loop.add_reader(ep.fileno(), read)
        ep.register(file, Event.IN, "file")
        return await asyncio.wait_for(ready, 10)

    assert asyncio.run(main()) == [("file", Event.IN)]


def test_an_asyncio_loop_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"line\n" * 3)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        pieces = []

        def read() -> None:
            pieces.append(os.read(fd, 4))
            if not pieces[-1]:
                loop.remove_reader(fd)
                done.set_result(b"".join(pieces))

        fd = os.open(path, os.O_RDONLY)
        loop.add_reader(fd, read)
        try:
            return await asyncio.wait_for(done, 10)
        finally:
            os.close(fd)

    def loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(pyepoll.EpollSelector(always_ready=True))

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == b"line\n" * 3


def test_fromfd_shares_the_registrations(ep: Epoll, open_file: Open) -> None:
    one, other = open_file(), open_file()
    ep.register(one, Event.IN, "one")
    same = pyepoll.Epoll[Any].fromfd(ep.fileno())
    same.register(other, Event.IN, "other")
    assert sorted(same.poll(0)) == [("one", Event.IN), ("other", Event.IN)]
    same.unregister(one)
    assert ep.poll(0) == [("other", Event.IN)]


def test_a_foreign_epoll_refuses_such_files(file: int) -> None:
    with select.epoll() as stock:
        refused(lambda: pyepoll.Epoll[Any].fromfd(stock.fileno()).register(file), errno.EPERM)


@pytest.mark.parametrize("way", ["close", "del"])
def test_close_ends_a_wait_for_a_disarmed_file(
    ep: Epoll, file: int, pool: ThreadPoolExecutor, way: str
) -> None:
    before = open_fds()
    inner = pyepoll.Epoll[Any](always_ready=True)
    inner.register(file, Event.IN | Event.ONESHOT)
    assert inner.poll(0) == [(file, Event.IN)]
    waiting = pool.submit(inner.poll)
    until(lambda: inner.stats().waits == 2)
    inner.close()
    with pytest.raises(ValueError):
        waiting.result()
    until(lambda: open_fds() == before)


# The selector.


def test_the_selector_reports_files(file: int, socketpair: tuple[socket.socket, socket.socket]) -> None:
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    with pyepoll.EpollSelector(always_ready=True) as selector:
        key = selector.register(file, both, "file")
        idle = selector.register(socketpair[0], selectors.EVENT_READ, "socket")
        assert selector.select() == [(key, both)]
        with pytest.raises(KeyError):
            selector.register(file, both)
        assert selector.get_key(file) is key
        socketpair[1].send(b"x")
        assert sorted(selector.select(), key=lambda pair: pair[0].fd) == sorted(
            [(key, both), (idle, selectors.EVENT_READ)], key=lambda pair: pair[0].fd
        )
        key = selector.modify(file, selectors.EVENT_READ, "other data")
        assert (key, selectors.EVENT_READ) in selector.select()
        assert selector.unregister(file) == key
        assert selector.select() == [(idle, selectors.EVENT_READ)]
        assert file not in selector.get_map()


# Forks.


def test_a_forked_copy_has_the_registrations(ep: Epoll, open_file: Open) -> None:
    level, disarmed, edge = open_file(), open_file(), open_file()
    ep.register(level, Event.IN, "level")
    ep.register(disarmed, Event.IN | Event.ONESHOT, "disarmed")
    ep.poll(0)
    ep.register(edge, Event.OUT | Event.ET, "edge")

    def child() -> None:
        assert sorted(ep.poll(0)) == [("edge", Event.OUT), ("level", Event.IN)]
        assert ep.poll(0) == [("level", Event.IN)]
        ep.unregister(level)
        ep.rearm(disarmed)
        ep.modify(edge, Event.IN)
        assert sorted(ep.poll(0)) == [("disarmed", Event.IN), ("edge", Event.IN)]
        assert agrees(ep) is False  # `disarmed` is once more.
        ep.close()

    before = fdinfo(ep)
    assert in_child(child) == ""
    assert fdinfo(ep) == before
    assert sorted(ep.poll(0)) == [("edge", Event.OUT), ("level", Event.IN)]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("front", [False, True])
def test_a_child_closes_what_it_inherited(ep: Epoll, file: int, used: bool, front: bool) -> None:
    before = open_fds()
    inner = pyepoll.Epoll[Any](always_ready=True)
    if front:
        inner.fileno()
    inner.register(file, Event.IN, "file")

    def child() -> None:
        if used:
            inner.poll(0)
        inner.close()
        assert {fd for fd in open_fds() if fd not in before} <= {fd for fd in open_fds() if is_pipe(fd)}

    def is_pipe(fd: int) -> bool:
        return open_fds().get(fd, "").startswith("pipe:")

    assert in_child(child) == ""
    assert inner.poll(0) == [("file", Event.IN)]
    inner.close()
    assert open_fds() == before


def test_a_child_drops_a_file_whose_stand_in_it_has_closed(ep: Epoll, file: int, ready: int) -> None:
    ep.register(file, Event.IN, "file")
    (own,) = fdinfo(ep)

    def child() -> None:
        os.dup2(ready, own)
        assert ep.poll(0) == []
        assert ep.stats().lost_registrations == 1
        ep.register(file, Event.IN, "again")
        assert ep.poll(0) == [("again", Event.IN)]
        ep.close()
        assert os.read(own, 8)

    assert in_child(child) == ""
    assert ep.poll(0) == [("file", Event.IN)]


def test_a_copy_is_identified_by_what_the_parent_has_registered_since(ep: Epoll, file: int) -> None:
    """The parent's list has nothing but the stand-in of a file that the child does not know."""
    registered, write = os.pipe()
    go, done = os.pipe()

    def child() -> None:
        assert os.read(registered, 1)
        other = os.eventfd(1)
        ep.register(other, Event.IN, "child's")
        assert ep.poll(0) == [("child's", Event.IN)]

    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    ep.register(file, Event.IN, "file")
    os.write(write, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert ep.poll(0) == [("file", Event.IN)]
    for fd in (registered, write, go, done):
        os.close(fd)
