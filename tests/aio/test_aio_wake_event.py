"""The eventfd with which other threads wake the loop: made when it is needed, and gone with the loop."""

import asyncio
import contextlib
import os
import selectors
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.fds import no_fd_left

from pyepoll.aio import EventLoop


async def woken(times: int) -> Any:
    """Let another thread wake the waiting loop so many times."""
    loop = asyncio.get_running_loop()
    for number in range(times):
        future = loop.create_future()
        timer = threading.Timer(0.001, loop.call_soon_threadsafe, (future.set_result, number))
        timer.start()
        assert await asyncio.wait_for(future, 30) == number
        timer.join()
    return loop


@contextlib.contextmanager
def new_loop(*args: Any) -> Iterator[Any]:
    loop = EventLoop(*args)
    loop.set_debug(False)
    try:
        yield loop
    finally:
        loop.close()


def has_event(loop: Any) -> bool:
    return loop._wake_event is not None


def fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"), key=int)


def test_it_is_made_when_a_thread_wakes_the_loop_and_closed_with_it() -> None:
    before = fds()
    with new_loop() as loop:
        loop.run_until_complete(asyncio.sleep(0.001))
        assert not has_event(loop)
        alone = fds()
        loop.run_until_complete(woken(3))
        assert has_event(loop)
        assert len(fds()) == len(alone) + 1
        # It is no reader: asyncio's own is the only one.
        assert [key.fileobj for key in loop._selector.get_map().values()] == [loop._ssock.fileno()]
    assert fds() == before


def test_another_selector_does_not_watch_it() -> None:
    with new_loop() as loop:
        loop.run_until_complete(woken(2))
        assert has_event(loop)
        with contextlib.closing(loop._selector):
            loop._selector = selectors.SelectSelector()
            assert not has_event(loop)
            loop._add_reader(loop._ssock.fileno(), loop._read_from_self)
            loop.run_until_complete(woken(2))
            assert not has_event(loop)


def test_a_selector_of_asyncios_has_none() -> None:
    with new_loop(selectors.EpollSelector()) as loop:
        loop.run_until_complete(woken(2))
        assert not has_event(loop)


def test_without_a_free_fd_the_sockets_do() -> None:
    with new_loop() as loop:
        with no_fd_left():
            loop.run_until_complete(woken(2))
            assert not has_event(loop)
        loop.run_until_complete(woken(2))
        assert has_event(loop)


def test_the_numbers_of_signals_come_through_the_sockets() -> None:
    async def main(loop: Any) -> None:
        received = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, received.set_result, "signal")
        timer = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert await asyncio.wait_for(received, 30) == "signal"
        timer.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    with new_loop() as loop:
        loop.run_until_complete(woken(2))
        loop.run_until_complete(main(loop))
        loop.run_until_complete(woken(1))


def test_threads_that_wake_a_loop_that_is_being_closed() -> None:
    """They get the error of a closed loop, and write into no other file."""
    ends: list[str] = []

    def wakes(loop: Any) -> None:
        try:
            while True:
                loop.call_soon_threadsafe(int)
        except RuntimeError as error:
            ends.append(str(error))

    for _ in range(4):
        loop = EventLoop()
        loop.run_until_complete(woken(2))
        threads = [threading.Thread(target=wakes, args=(loop,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        read, write = os.pipe()
        for thread in threads:
            thread.join()
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        os.close(read)
        os.close(write)
    assert ends == ["Event loop is closed"] * 8
