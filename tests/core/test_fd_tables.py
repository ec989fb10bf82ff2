"""In a thread with an fd table of its own, the fds that count are that thread's.

The main thread has other files under the same fds: nothing that the other thread does touches them.
"""

import contextlib
import ctypes
import os
import select
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fds import open_fds
from support.kernel import agree, fdinfo_lines
from support.processes import fork, in_child
from support.threads import until

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]

CLONE_FILES = 0x400


def unshare_fds() -> None:
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_FILES) == 0


def with_own_fds(work: Callable[[], None]) -> None:
    """Do the work in such a thread; fds that it leaves open are closed with it. Fails as the work does."""

    def begin() -> None:
        unshare_fds()
        work()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(begin).result(60)


def other_epolls() -> list[Epoll]:
    """Epolls of the main thread under the fds that the other one gets, too."""
    epolls = [Epoll() for _ in range(6)]
    for number, ep in enumerate(epolls):
        ep.register(os.eventfd(0), Event.IN, number)
        assert ep.fileno() >= 0
    return epolls


def with_others_meanwhile(work: Callable[[Epoll], None], public: bool) -> None:
    """Let the work be done on an Epoll of such a thread; its fds are epolls in the main thread."""
    made, go = threading.Event(), threading.Event()

    def begin() -> None:
        unshare_fds()
        with Epoll() as ep:
            if public:
                assert ep.fileno() >= 0
            made.set()
            go.wait()
            work(ep)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(begin)
        made.wait()
        before = open_fds()
        others = other_epolls()
        try:
            watched = [fdinfo_lines(ep) for ep in others]
            go.set()
            working.result(60)
            assert [fdinfo_lines(ep) for ep in others] == watched
            for ep in others:
                assert ep.poll(0) == []
        finally:
            go.set()
            for ep in others:
                for fd in ep.registrations:
                    os.close(fd)
                ep.close()
        assert open_fds() == before


public = pytest.mark.parametrize("public", [False, True], ids=["private", "fileno() was called"])


@public
def test_a_rebuild_is_of_the_threads_own_epoll(public: bool) -> None:
    def work(ep: Epoll) -> None:
        live, shot = os.eventfd(1), os.eventfd(1)
        ep.register(live, Event.IN, "live")
        ep.register(shot, Event.IN | Event.ONESHOT, "shot")
        assert len(ep.poll(0)) == 2
        reader, writer = os.pipe()
        os.write(writer, b"x")
        ep.register(reader, Event.IN, "stale")
        os.dup(reader)
        os.close(reader)
        with contextlib.suppress(OSError):
            ep.unregister(reader)
        until(lambda: ep.poll(0) == [("live", Event.IN)] and ep.stats().rebuilds == 1)
        assert {fd for fd, _, _ in fdinfo_lines(ep)} == {live, shot}
        assert ep.stats().lost_registrations == 0

    with_others_meanwhile(work, public)


@public
def test_close_wakes_the_threads_own_waiter(public: bool) -> None:
    def work(ep: Epoll) -> None:
        # A thread that is begun here has the same fd table.
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ep.poll)
            until(lambda: ep.stats().waits > 0)
            ep.close()
            with pytest.raises(ValueError):
                waiting.result(10)

    with_others_meanwhile(work, public)


def test_registrations_ask_for_the_threads_own_wakeup() -> None:
    def work(ep: Epoll) -> None:
        fd = os.eventfd(1)
        ep.register(fd, Event.IN | Event.WAKEUP, "live")
        ((watched, events, _),) = fdinfo_lines(ep)
        assert watched == fd
        assert bool(events & Event.WAKEUP) == bool(ep.registrations[fd][0] & Event.WAKEUP)
        assert [data for data, _ in ep.poll(0)] == ["live"]

    with_others_meanwhile(work, False)


@public
def test_a_child_of_the_thread_has_copies_of_its_epolls(public: bool) -> None:
    def work(ep: Epoll) -> None:
        fd, shot = os.eventfd(1), os.eventfd(1)
        ep.register(fd, Event.IN, "live")
        ep.register(shot, Event.IN | Event.ONESHOT, "shot")
        ep.poll(0)
        before = fdinfo_lines(ep)

        def child() -> None:
            assert ep.poll(0) == [("live", Event.IN)]
            ep.unregister(fd)
            assert ep.poll(0) == []
            ep.rearm(shot)
            assert ep.poll(0) == [("shot", Event.IN)]

        assert in_child(child) == ""
        assert fdinfo_lines(ep) == before
        assert ep.poll(0) == [("live", Event.IN)]

    with_others_meanwhile(work, public)


def test_an_epoll_within_the_threads_epoll_is_reported() -> None:
    def work(ep: Epoll) -> None:
        with Epoll() as inner:
            live = os.eventfd(0)
            inner.register(live, Event.IN)
            ep.register(inner, Event.IN, "inner")
            os.eventfd_write(live, 1)
            assert ep.poll(5) == [("inner", Event.IN)]
            ep.unregister(inner)

    with_others_meanwhile(work, True)


def test_a_child_of_the_main_thread_closes_no_fd_of_the_thread() -> None:
    """A wait that got only stale events has an fd that children close, but theirs is another file."""
    stop, waiting = os.eventfd(0), threading.Event()
    numbers: list[int] = []

    def work() -> None:
        # Of the files that the main thread opens now, the other thread knows nothing.
        waiting.set()
        until(lambda: bool(numbers))
        base = select.epoll()
        ep = Epoll.fromfd(base.fileno())
        fd = os.eventfd(1)
        ep.register(fd, Event.IN, "stale")
        os.dup(fd)
        os.close(fd)
        with contextlib.suppress(OSError):
            ep.unregister(fd)
        ep.register(stop, Event.IN, "stop")
        assert ep.poll() == [("stop", Event.IN)]
        assert ep.stats().failed_rebuilds > 0
        numbers.append(-1)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(with_own_fds, work)
        waiting.wait()
        files = [os.eventfd(7) for _ in range(20)]
        numbers.append(1)
        try:
            # Until it sleeps on its guard.
            until(lambda: any("eventpoll" in what for what in guards()))

            def child() -> None:
                for fd in files:
                    assert os.eventfd_read(fd) == 7

            assert in_child(child) == ""
        finally:
            os.eventfd_write(stop, 1)
            working.result(20)
            for fd in files:
                os.close(fd)
            os.close(stop)
    assert numbers == [1, -1]


def guards() -> list[str]:
    """The epolls in other threads' tables that watch an epoll by edges."""
    found = []
    for task in os.listdir("/proc/self/task"):
        folder = f"/proc/self/task/{task}"
        for fd in os.listdir(f"{folder}/fd"):
            # The one by which the folder was listed is closed again, and so may others be.
            with contextlib.suppress(OSError), open(f"{folder}/fdinfo/{fd}") as file:
                # EPOLLIN | EPOLLET, and the bits that the kernel adds.
                if any(line.startswith("tfd:") and "80000019" in line for line in file):
                    found.append(os.readlink(f"{folder}/fd/{fd}"))
    return found


def test_a_child_of_the_main_thread_closes_its_copy_of_the_private_fd() -> None:
    """The other way round: where the tables are one, the child has no use for it."""
    stop, fd = os.eventfd(0), os.eventfd(1)
    duplicate = os.dup(fd)
    with select.epoll() as base, ThreadPoolExecutor(1) as pool:
        ep = Epoll.fromfd(base.fileno())
        ep.register(fd, Event.IN, "stale")
        os.close(fd)
        with contextlib.suppress(OSError):
            ep.unregister(fd)
        ep.register(stop, Event.IN, "stop")
        waiting = pool.submit(ep.poll)
        try:
            until(lambda: bool(guards()))
            child_id = fork()
            if child_id == 0:
                os._exit(bool(guards()))
            assert os.waitpid(child_id, 0)[1] == 0
        finally:
            os.eventfd_write(stop, 1)
        assert waiting.result(10) == [("stop", Event.IN)]
        assert agree(ep) is False  # the stale registration is still the kernel's
    os.close(duplicate)
    os.close(stop)
