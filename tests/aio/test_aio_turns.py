"""A loop that always has callbacks or events ready still sees signals, other events, timers and threads."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.processes import run

from pyepoll import aio
from pyepoll.aio import EventLoop


def test_signal_handler_runs_while_tasks_are_ready() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, came.set_result, None)
        os.kill(os.getpid(), signal.SIGTERM)
        while not came.done():
            await asyncio.sleep(0)
        loop.remove_signal_handler(signal.SIGTERM)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(scenario())


def test_other_threads_run_while_callbacks_are_ready() -> None:
    with contextlib.closing(EventLoop()) as loop:
        done = threading.Event()
        thread = threading.Thread(target=done.set)

        async def spin() -> None:
            thread.start()
            while not done.is_set():
                await asyncio.sleep(0)

        loop.run_until_complete(spin())
        thread.join()


@pytest.mark.parametrize("how", ["event", "timer", "thread"])
def test_events_are_seen_while_tasks_are_ready(how: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        came = loop.create_future()
        a, b = socket.socketpair()
        with a, b:
            if how == "event":
                loop.add_reader(a, came.set_result, None)
                b.send(b"data")
            elif how == "timer":
                loop.call_later(0.001, came.set_result, None)
            else:
                threading.Thread(target=loop.call_soon_threadsafe, args=(came.set_result, None)).start()
            while not came.done():
                await asyncio.sleep(0)
            loop.remove_reader(a)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(scenario())


def test_no_wakeup_is_lost() -> None:
    """A thread that calls at any moment, also as the loop goes to sleep, is answered."""

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        count = 0

        def answer(event: threading.Event) -> None:
            nonlocal count
            count += 1
            event.set()

        def ask() -> None:
            for _ in range(300):
                event = threading.Event()
                loop.call_soon_threadsafe(answer, event)
                assert event.wait(30)

        await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(4)))
        return count

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert runner.run(scenario()) == 1200


def test_run_forever_in_another_thread_leaves_a_running_loop_alone() -> None:
    """A turn inside a callback is one turn, also while another thread waits in run_forever()."""
    entered, leave = threading.Event(), threading.Event()
    errors: list[str] = []

    class Slow(EventLoop):
        def _check_closed(self) -> None:
            if threading.current_thread() is thread:
                entered.set()
                leave.wait(30)
            super()._check_closed()

    def run_again() -> None:
        try:
            loop.run_forever()
        except RuntimeError as error:
            errors.append(str(error))

    def nest() -> None:
        thread.start()
        entered.wait(30)
        before = aio.stats(loop).turns
        loop.call_later(0.01, loop.stop)
        loop.call_soon(int)
        loop._run_once()
        turns.append(aio.stats(loop).turns - before)
        leave.set()
        thread.join()
        loop.stop()

    turns: list[int] = []
    thread = threading.Thread(target=run_again)
    with contextlib.closing(Slow()) as loop:
        loop.call_soon(nest)
        loop.run_forever()
    assert turns == [1]
    assert errors == ["This event loop is already running"]


FEW, MANY = 64, 200


@pytest.fixture
def busy_loop() -> Iterator[tuple[EventLoop, list[int]]]:
    """A loop with many readers that are always ready, and the list of those that were called."""
    called: list[int] = []
    with contextlib.closing(EventLoop()) as loop, contextlib.ExitStack() as fds:
        for _ in range(MANY):
            fd = os.eventfd(1)
            fds.callback(os.close, fd)
            loop.add_reader(fd, called.append, fd)
            fds.callback(loop.remove_reader, fd)
        yield loop, called


def run_one_turn(loop: EventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_turn_takes_few_events_and_the_next_turns_the_others(busy_loop: tuple[EventLoop, list[int]]) -> None:
    loop, called = busy_loop
    run_one_turn(loop)
    assert len(called) == FEW
    while len(called) < MANY:
        run_one_turn(loop)
    assert len(set(called[:MANY])) == MANY


def test_turn_takes_all_events_after_a_slow_one(busy_loop: tuple[EventLoop, list[int]]) -> None:
    """Beside callbacks that are always ready and take long, a few for each turn would be a small share."""
    loop, called = busy_loop
    loop.call_soon(time.sleep, 0.02)
    run_one_turn(loop)
    assert len(called) == FEW
    run_one_turn(loop)
    assert len(called) == FEW + MANY


def test_turn_takes_all_events_beside_a_stale_registration() -> None:
    """It cannot be removed without a new epoll, and each wait filters all events because of it."""
    counts = run(
        f"""
        import contextlib, errno, os
        from support.seccomp import deny
        from pyepoll.aio import EventLoop

        called = []
        with contextlib.closing(EventLoop()) as loop:
            reader, writer = os.pipe()
            loop.add_reader(reader, called.append, reader)
            duplicate = os.dup(reader)
            os.close(reader)
            loop.remove_reader(reader)
            os.write(writer, b"x")
            deny("epoll_create1", errno.EMFILE)
            for _ in range({MANY}):
                fd = os.eventfd(1)
                loop.add_reader(fd, called.append, fd)
            for _ in range(3):
                loop.call_soon(loop.stop)
                loop.run_forever()
                print(len(called))
                called.clear()
        """
    )
    assert counts.split() == [f"{FEW - 1}", f"{MANY}", f"{MANY}"]


def test_select_returns_all_events(busy_loop: tuple[EventLoop, list[int]]) -> None:
    loop, _ = busy_loop
    assert len(loop._selector.select(0)) == MANY
