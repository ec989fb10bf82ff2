"""stats(): the counters of a loop, in turns of its own and in turns that asyncio's code runs."""

import asyncio
import contextlib
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyepoll import aio


class Overridden(aio.EventLoop):
    """asyncio's code runs its turns."""

    def _process_events(self, event_list: Any) -> None:
        super()._process_events(event_list)


def in_debug_mode() -> aio.EventLoop:
    loop = aio.new_event_loop()
    loop.set_debug(True)
    return loop


def on_poll() -> aio.EventLoop:
    return aio.EventLoop(selectors.PollSelector())


KINDS = pytest.mark.parametrize(
    "make", [aio.new_event_loop, on_poll, in_debug_mode, Overridden], ids=lambda make: make.__name__
)
IN_C = pytest.mark.parametrize("make", [aio.new_event_loop, on_poll], ids=lambda make: make.__name__)


@contextlib.contextmanager
def using(make: Callable[[], aio.EventLoop], enabled: bool = False) -> Iterator[aio.EventLoop]:
    with contextlib.closing(make()) as loop:
        if enabled:
            aio.enable_stats(loop)
        yield loop


def one_turn(loop: aio.EventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def wait_for_idle(loop: aio.EventLoop, seconds: float) -> None:
    """Let the loop sleep; on a busy machine, a timer may be due before the loop waits for it: then again."""
    deadline = time.monotonic() + 20
    while aio.stats(loop).idle < seconds:
        assert time.monotonic() < deadline
        loop.run_until_complete(asyncio.sleep(0.02))


def nothing() -> None:
    pass


@KINDS
def test_turns_and_callbacks_are_counted(make: Callable[[], aio.EventLoop]) -> None:
    with using(make) as loop:
        assert aio.stats(loop) == (0, 0, 0, 0, 0.0, False)
        for count in 1, 2, 3:
            loop.call_soon(nothing)
            loop.call_later(-1, nothing)
            one_turn(loop)
            assert aio.stats(loop)[:2] == (count, 3 * count)


@IN_C
def test_cancelled_callbacks_are_not_counted(make: Callable[[], aio.EventLoop]) -> None:
    with using(make) as loop:
        loop.call_soon(nothing).cancel()
        loop.call_later(-1, nothing).cancel()
        one_turn(loop)
        assert aio.stats(loop).callbacks == 1


@KINDS
def test_callbacks_that_raise_are_counted(make: Callable[[], aio.EventLoop]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    with using(make) as loop:
        loop.set_exception_handler(lambda loop, context: None)
        loop.call_soon(fail, OSError())
        one_turn(loop)
        assert aio.stats(loop).callbacks == 2
        loop.call_soon(fail, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert aio.stats(loop)[:2] == (2, 3)


@KINDS
def test_events_are_counted(make: Callable[[], aio.EventLoop]) -> None:
    a, b = socket.socketpair()
    with using(make) as loop, a, b:
        loop.add_writer(a, nothing)
        loop.add_writer(b, nothing)
        one_turn(loop)
        assert aio.stats(loop).events == 2
        loop.remove_writer(b)
        one_turn(loop)
        assert aio.stats(loop).events == 3
        loop.call_soon_threadsafe(nothing)  # A byte in the loop's own pipe.
        one_turn(loop)
        assert aio.stats(loop).events == 5


def test_events_of_another_selector_are_not_counted_in_debug_mode() -> None:
    a, b = socket.socketpair()
    with using(on_poll) as loop, a, b:
        loop.set_debug(True)
        loop.add_writer(a, nothing)
        one_turn(loop)
        assert aio.stats(loop)[:3] == (1, 2, 0)


@KINDS
def test_no_time_is_taken_until_it_is_enabled(make: Callable[[], aio.EventLoop]) -> None:
    with using(make) as loop:
        loop.slow_callback_duration = 0
        loop.run_until_complete(asyncio.sleep(0.01))
        assert aio.stats(loop)[3:] == (0, 0.0, False)
        aio.enable_stats(loop)
        wait_for_idle(loop, 0.001)
        counted = aio.stats(loop)
        assert counted.timed
        aio.enable_stats(loop, False)
        loop.run_until_complete(asyncio.sleep(0.01))
        assert aio.stats(loop)[3:] == (counted.slow_callbacks, counted.idle, False)


@KINDS
def test_idle_is_the_time_of_waits(make: Callable[[], aio.EventLoop]) -> None:
    def block() -> None:
        time.sleep(0.05)
        loop.stop()

    with using(make, enabled=True) as loop:
        start = time.monotonic()
        loop.call_later(0.05, loop.call_soon, block)
        loop.run_forever()
        assert aio.stats(loop).idle <= time.monotonic() - start - 0.05
        wait_for_idle(loop, 0.04)


@pytest.mark.parametrize("enabled", [True, False])
def test_idle_time_begins_and_ends_with_whole_waits(enabled: bool) -> None:
    """Here another thread enables the counting, or stops it, while the loop waits."""
    with using(aio.new_event_loop, enabled=not enabled) as loop:

        def change() -> None:
            time.sleep(0.05)  # Until the loop waits; if it does not yet, the test sees less, but is right.
            aio.enable_stats(loop, enabled)
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=change)
        start = time.monotonic()
        thread.start()
        loop.run_forever()
        thread.join()
        idle = aio.stats(loop).idle
        assert 0 <= idle <= time.monotonic() - start
        time.sleep(0.01)
        assert aio.stats(loop).idle == idle  # None goes on.


def test_a_wait_that_goes_on_is_idle_time() -> None:
    seen: list[float] = []
    with using(aio.new_event_loop, enabled=True) as loop:

        def watch() -> None:
            deadline = time.monotonic() + 20
            while (not seen or seen[-1] < 0.02) and time.monotonic() < deadline:
                seen.append(aio.stats(loop).idle)
            loop.call_soon_threadsafe(loop.stop)

        thread = threading.Thread(target=watch)
        thread.start()
        loop.run_forever()
        thread.join()
        assert aio.stats(loop).turns <= 2  # The loop was in one wait all the time.
        assert seen == sorted(seen)
        assert aio.stats(loop).idle >= seen[-1] >= 0.02


def test_idle_never_falls_while_waits_begin_and_end() -> None:
    seen: list[float] = []
    done = threading.Event()
    with using(aio.new_event_loop, enabled=True) as loop:

        def watch() -> None:
            while not done.is_set():
                seen.append(aio.stats(loop).idle)

        async def wait() -> None:
            while len(seen) < 1000:
                await asyncio.sleep(0.0001)

        thread = threading.Thread(target=watch)
        thread.start()
        loop.run_until_complete(wait())
        done.set()
        thread.join()
    assert seen == sorted(seen)


@IN_C
@pytest.mark.parametrize(("duration", "slow"), [(0, 4), (-1, 4), (0.02, 1), (1e10, 0), (math.inf, 0)])
def test_slow_callbacks_took_at_least_the_duration(
    make: Callable[[], aio.EventLoop], duration: float, slow: int
) -> None:
    with using(make, enabled=True) as loop:
        loop.slow_callback_duration = duration
        # A busy machine may stop the thread in a callback that is not slow: then once more.
        for attempt in range(100):
            before = aio.stats(loop)
            loop.call_soon(nothing)
            loop.call_soon(time.sleep, 0.02)
            loop.call_later(-1, nothing)
            one_turn(loop)
            after = aio.stats(loop)
            assert after.callbacks == 4 * (attempt + 1)
            assert after.slow_callbacks - before.slow_callbacks >= slow
            if after.slow_callbacks - before.slow_callbacks == slow:
                break
        else:
            pytest.fail("other callbacks are counted as slow")


@pytest.mark.parametrize("make", [in_debug_mode, Overridden], ids=lambda make: make.__name__)
def test_asyncios_code_counts_no_slow_callbacks(make: Callable[[], aio.EventLoop]) -> None:
    with using(make, enabled=True) as loop:
        loop.slow_callback_duration = 0
        one_turn(loop)
        assert aio.stats(loop)[:4] == (1, 1, 0, 0)


def test_a_duration_that_is_no_number_raises() -> None:
    with using(aio.new_event_loop, enabled=True) as loop:
        loop.slow_callback_duration = None  # type: ignore[assignment]
        with pytest.raises(TypeError):
            one_turn(loop)
        loop.slow_callback_duration = 1
        loop.run_forever()  # The callback is still queued.
        assert aio.stats(loop).callbacks == 1


def test_a_run_once_of_the_programs_own_is_not_counted() -> None:
    class Mine(aio.EventLoop):
        def _run_once(self) -> None:
            handles: Any = self._ready
            while handles:
                handles.popleft()._run()

    with using(Mine) as loop:
        one_turn(loop)
        assert aio.stats(loop)[:2] == (0, 0)


def test_a_run_once_that_calls_its_base_is_counted() -> None:
    class Mine(aio.EventLoop):
        def _run_once(self) -> None:
            super()._run_once()

    with using(Mine) as loop:
        one_turn(loop)
        assert aio.stats(loop)[:2] == (1, 1)


def test_turns_inside_a_turn_are_counted_once() -> None:
    """Programs that let asyncio run inside a callback call _run_once() there."""
    with using(in_debug_mode) as loop:

        def nest() -> None:
            loop.call_soon(nothing)
            loop._run_once()
            loop.stop()

        loop.call_soon(nest)
        loop.run_forever()
        assert aio.stats(loop)[:2] == (2, 2)


def test_the_running_loop_is_the_default() -> None:
    async def scenario() -> tuple[aio.LoopStats, aio.LoopStats]:
        aio.enable_stats()
        loop = asyncio.get_running_loop()
        return aio.stats(), aio.stats(loop)

    with using(aio.new_event_loop) as loop:
        ours, given = loop.run_until_complete(scenario())
    assert ours == given
    assert ours.timed
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.stats()
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.enable_stats()


def test_the_counters_outlive_the_loop() -> None:
    with using(aio.new_event_loop) as loop:
        one_turn(loop)
    assert aio.stats(loop)[:2] == (1, 1)


@pytest.mark.parametrize("function", [aio.stats, aio.enable_stats])
def test_other_loops_are_refused(function: Callable[[Any], object]) -> None:
    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        with pytest.raises(
            TypeError, match=r"only loops of pyepoll.aio have stats, not _UnixSelectorEventLoop"
        ):
            function(loop)

        async def ask() -> None:
            function(None)

        with pytest.raises(TypeError, match="have stats"):
            loop.run_until_complete(ask())


def test_stats_are_a_tuple_with_names() -> None:
    with using(aio.new_event_loop) as loop:
        stats = aio.stats(loop)
    assert isinstance(stats, aio.LoopStats)
    assert stats._fields == ("turns", "callbacks", "events", "slow_callbacks", "idle", "timed")
    with pytest.raises(AttributeError):
        stats.turns = 1  # type: ignore[misc]
