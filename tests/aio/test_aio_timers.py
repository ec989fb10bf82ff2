"""Timers: never early, in order, and not rounded up to milliseconds."""

import asyncio
import random
import selectors
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.effort import Effort
from support.loops import FACTORIES, on, same

import pyepoll
from pyepoll import aio


@pytest.mark.parametrize("delay", [0, 1e-9, 1e-6, 1e-4, 0.0013, 0.01])
def test_a_sleep_is_not_early(delay: float, effort: Effort) -> None:
    async def scenario() -> list[float]:
        lasted = []
        for _ in range(effort(30, 1000)):
            start = time.monotonic()
            await asyncio.sleep(delay)
            lasted.append(time.monotonic() - start)
        return lasted

    # asyncio runs timers that are due within the clock's resolution.
    assert min(on("pyepoll", scenario)) >= delay - time.get_clock_info("monotonic").resolution


def test_a_short_sleep_can_take_less_than_a_millisecond() -> None:
    """At least now and then: under load, a sleep may take any time."""

    async def scenario() -> float:
        best = 1.0
        for _ in range(200):
            start = time.monotonic()
            await asyncio.sleep(1e-4)
            best = min(best, time.monotonic() - start)
        return best

    assert on("pyepoll", scenario) < 0.001


def test_a_thousand_timers_run_in_order() -> None:
    """In the order of their times, equal ones too, none early; those cancelled do not run."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        rng = random.Random(7)
        start = loop.time() + 0.001
        ran: list[tuple[float, float]] = []
        handles = []
        for _ in range(1000):
            when = start + rng.randrange(300) / 10_000
            handles.append((when, loop.call_at(when, lambda when: ran.append((when, loop.time())), when)))
        cancelled = [handles.pop(rng.randrange(len(handles))) for _ in range(300)]
        for _, handle in cancelled:
            handle.cancel()
        while len(ran) < len(handles):
            await asyncio.sleep(0.001)
        assert all(now >= when - time.get_clock_info("monotonic").resolution for when, now in ran)
        whens = [when for when, _ in ran]
        assert whens == sorted(when for when, _ in handles)
        return [len(ran)]

    assert same(scenario) == [700]


def test_the_loop_makes_no_turn_without_an_event() -> None:
    """A wait is not cut short: the loop does not go round and round until a timer is due."""

    class Counts(pyepoll.EpollSelector):
        count = 0

        def select(self, timeout: float | None = None) -> Any:
            self.count += 1
            return super().select(timeout)

    selector = Counts()
    loop = aio.EventLoop(selector)
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0.003))
    before = selector.count
    for _ in range(10):
        loop.run_until_complete(asyncio.sleep(0.003))
    # Three turns each: the start, the timer, the end.
    assert selector.count - before <= 10 * 4
    loop.close()


def test_a_timeout_cancels_its_task() -> None:
    async def scenario() -> list[str]:
        said = []
        try:
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.005)
        except TimeoutError:
            said.append("wait_for")
        try:
            async with asyncio.timeout(0.005):
                await asyncio.sleep(60)
        except TimeoutError:
            said.append("timeout")
        return said

    assert same(scenario) == ["wait_for", "timeout"]


@pytest.mark.parametrize(
    "selector",
    [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector, pyepoll.EpollSelector],
)
def test_timers_work_with_any_selector(selector: Callable[[], selectors.BaseSelector]) -> None:
    with asyncio.Runner(loop_factory=lambda: aio.EventLoop(selector())) as runner:
        start = time.monotonic()
        runner.run(asyncio.sleep(0.002))
        assert time.monotonic() - start >= 0.002 - time.get_clock_info("monotonic").resolution
    assert set(FACTORIES) == {"asyncio", "pyepoll"}
