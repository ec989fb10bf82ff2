"""`_scheduled` is a heap as heapq makes it, whoever changes it, and cancelled timers leave it at once."""

import asyncio
import contextlib
import heapq
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import FACTORIES

from pyepoll.aio import EventLoop, _aio


@contextlib.contextmanager
def new_loop() -> Iterator[Any]:
    loop = EventLoop()
    loop.set_debug(False)
    try:
        yield loop
    finally:
        loop.close()


when = st.integers(0, 20).map(float) | st.integers(0, 20)
steps = st.one_of(
    st.tuples(st.just("call_at"), when),
    st.tuples(st.just("call_at"), when),
    st.tuples(st.just("push"), when),
    st.tuples(st.just("pop"), st.none()),
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.just("debug"), st.booleans()),
)


@given(st.lists(steps, max_size=80))
def test_scheduled_is_a_heap(history: list[Any]) -> None:
    """With timers of asyncio's own class in it, and heapq's functions at work on it."""
    with new_loop() as loop:
        timers: list[Any] = []
        expected: list[Any] = []
        for step, value in history:
            if step == "call_at":
                timers.append(loop.call_at(value, print))
                expected.append(timers[-1])
            elif step == "push":
                timers.append(asyncio.TimerHandle(value, print, (), loop))
                heapq.heappush(loop._scheduled, timers[-1])
                timers[-1]._scheduled = True
                expected.append(timers[-1])
            elif step == "pop" and loop._scheduled:
                first = heapq.heappop(loop._scheduled)
                first._scheduled = False
                assert first._when == min(timer._when for timer in expected)
                expected = [timer for timer in expected if timer is not first]
            elif step == "cancel" and timers:
                timer = timers[value % len(timers)]
                timer.cancel()
                if type(timer) is _aio.TimerHandle and not timer._scheduled:
                    expected = [each for each in expected if each is not timer]
            elif step == "debug":
                loop.set_debug(value)
            heap = loop._scheduled
            assert sorted(map(id, heap)) == sorted(map(id, expected))
            assert all(heap[(i - 1) // 2]._when <= heap[i]._when for i in range(1, len(heap)))


@given(st.lists(st.integers(0, 8).map(float), max_size=60), st.data())
def test_cancelled_timers_leave_the_heap_at_once(times: list[float], data: Any) -> None:
    with new_loop() as loop:
        timers = [loop.call_at(time, print) for time in times]
        left = data.draw(st.permutations(timers))
        while left:
            timer = left.pop()
            timer.cancel()
            assert timer.cancelled()
            assert timer not in loop._scheduled
            assert len(loop._scheduled) == len(left)
        assert loop._timer_cancelled_count == 0


@given(st.lists(st.integers(0, 3), max_size=40))
def test_timers_run_in_the_order_of_asyncio(delays: list[int]) -> None:
    """Also those for the same time, whose order is heapq's."""
    orders = []
    for make in FACTORIES.values():
        loop = make()
        ran: list[int] = []
        start = loop.time() - 10
        for number, delay in enumerate(delays):
            loop.call_at(start + delay, ran.append, number)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0))
        orders.append(ran)
        loop.close()
    assert orders[0] == orders[1]
    assert len(orders[0]) == len(delays)


def test_timer_in_a_heap_that_was_rearranged_is_cancelled_as_asyncio_does() -> None:
    with new_loop() as loop:
        timers = [loop.call_at(loop.time() + 100 + i, print) for i in range(5)]
        loop._scheduled.sort(reverse=True)
        heapq.heapify(loop._scheduled)
        for timer in timers:
            timer.cancel()
        assert all(timer.cancelled() for timer in timers)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert loop._scheduled == []
        assert loop._timer_cancelled_count == 0


def test_error_of_a_comparison_is_raised() -> None:
    with new_loop() as loop:
        loop.call_at(1, print)
        with pytest.raises(TypeError):
            loop.call_at("later", print)
        loop._scheduled.clear()


def test_time_of_call_later_is_an_attribute_as_of_asyncios_timers() -> None:
    with new_loop() as loop:
        before = loop.time()
        timer = loop.call_later(100, print)
        assert before + 100 <= timer.when() <= loop.time() + 100
        assert timer._when is timer._when
        later, sooner = loop.call_later(300, print), loop.call_later(200, print)
        assert timer < sooner < later
        assert hash(timer) == hash(timer._when)
        later._when = 1.0
        heapq.heapify(loop._scheduled)
        assert loop._scheduled[0] is later
        assert f"when={later._when}" in repr(later)
        with pytest.raises(AttributeError):
            del later._when
        later.cancel()
        assert later.cancelled()


@pytest.mark.parametrize("when", [0.5, 0])
def test_timer_is_due_when_its_attribute_says_so(when: float) -> None:
    with new_loop() as loop:
        ran: list[str] = []
        timer = loop.call_later(1000, ran.append, "set")
        timer._when = when
        loop.call_later(1000, ran.append, "not set")
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert ran == ["set"]
        assert timer.when() == when


def test_timers_of_any_number_run_in_a_busy_loop() -> None:
    """With callbacks in each turn."""
    orders = []
    for make in FACTORIES.values():
        with contextlib.closing(make()) as loop:
            ran: list[str] = []
            start = int(loop.time())
            loop.call_at(start - 3, ran.append, "int")
            loop.call_at(start - 2.5, ran.append, "float")
            loop.call_at(Fraction(start - 2), ran.append, "fraction")  # type: ignore[arg-type]
            for _ in range(5):
                loop.call_soon(loop.stop)
                loop.run_forever()
            orders.append(ran)
    assert orders[0] == orders[1] == ["int", "float", "fraction"]


@pytest.mark.parametrize("how", ["call_at", "call_later", "_when", "asyncio's class"])
@pytest.mark.parametrize("busy", [False, True])
def test_a_timer_without_a_time_is_as_in_asyncio(how: str, busy: bool) -> None:
    """NaN: a turn that waits for it raises an error, another runs it at once."""

    def outcome(loop: Any) -> Any:
        ran: list[str] = []
        if how == "_when":
            loop.call_at(1e99, ran.append, "ran")._when = float("nan")
        elif how == "asyncio's class":
            loop._scheduled.append(asyncio.TimerHandle(float("nan"), ran.append, ("ran",), loop))
        else:
            getattr(loop, how)(float("nan"), ran.append, "ran")
        loop.call_later(0.001, loop.stop)
        if busy:
            loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        except (ValueError, OverflowError) as error:
            return type(error).__name__, ran
        return ran

    def with_closing(make: Any) -> Any:
        with contextlib.closing(make()) as loop:
            loop.set_debug(False)
            return outcome(loop)

    outcomes = [with_closing(make) for make in FACTORIES.values()]
    assert outcomes[0] == outcomes[1]
