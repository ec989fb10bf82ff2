"""The queue of ready handles behaves as the deque of asyncio's loop, of which it has the methods."""

import asyncio
import collections
import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyepoll.aio import EventLoop, _aio

ReadyQueue: Any = _aio.ReadyQueue

items = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.sampled_from(["append", "appendleft", "index", "remove", "__contains__"]), items),
    st.tuples(st.sampled_from(["pop", "popleft"])),
    st.tuples(st.just("extend"), st.lists(items, max_size=100)),
    st.tuples(st.just("__getitem__"), st.integers(0, 200)),
    # Seldom, or it would never be long.
    st.tuples(st.sampled_from(["clear", "__len__", "__len__", "__len__"])),
)


def outcome(function: Any, *args: Any) -> object:
    try:
        result = function(*args)
    except (IndexError, ValueError) as error:
        return type(error)
    return result


@given(st.lists(steps, max_size=60))
def test_queue_is_a_deque(history: list[Any]) -> None:
    ours, model = ReadyQueue(), collections.deque[int]()
    for name, *args in history:
        assert outcome(getattr(ours, name), *args) == outcome(getattr(model, name), *args), name
        assert list(ours) == list(model)
        assert len(ours) == len(model)
        assert bool(ours) == bool(model)
    assert repr(ours) == f"ReadyQueue({list(model)})"


def test_queue_wraps_around_while_it_grows() -> None:
    ours = ReadyQueue()
    model = collections.deque[int]()
    for number in range(1000):
        for queue in ours, model:
            queue.append(number)
            queue.append(-number)
            if number % 3:
                queue.popleft()
    assert list(ours) == list(model)


def test_queue_is_collected_with_a_cycle() -> None:
    class Kept:
        pass

    kept: Any = Kept()
    kept.queue = ReadyQueue()
    kept.queue.append(kept)
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None


def test_item_may_change_the_queue_when_it_is_compared() -> None:
    ours = ReadyQueue()

    class Clears:
        def __eq__(self, other: object) -> bool:
            ours.clear()
            return True

        __hash__ = None  # type: ignore[assignment]

    ours.extend([Clears(), 1])
    with pytest.raises(IndexError, match="mutated"):
        ours.remove(5)
    ours.extend([Clears(), 1])
    assert 5 in ours
    assert list(ours) == []


def test_item_may_use_the_queue_when_it_is_deallocated() -> None:
    ours = ReadyQueue()

    class Appends:
        def __del__(self) -> None:
            ours.append("late")

    ours.extend([Appends() for _ in range(100)])
    ours.clear()
    assert list(ours) == ["late"] * 100


def test_ready_of_a_loop_can_be_read_and_replaced() -> None:
    """Programs look at it; tests put a deque in its place."""
    loop: Any = EventLoop()
    ran: list[int] = []
    handle = loop.call_soon(ran.append, 1)
    assert list(loop._ready) == [handle]
    assert handle in loop._ready
    loop._ready = collections.deque(loop._ready)
    other = loop.call_soon(ran.append, 2)
    assert type(loop._ready) is collections.deque
    assert list(loop._ready) == [handle, other]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1, 2]
    loop.close()


def test_handle_may_be_put_first() -> None:
    """As a debugger or an eager scheduler does."""
    loop: Any = EventLoop()
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop._ready.appendleft(asyncio.Handle(ran.append, (2,), loop))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [2, 1]
    loop.close()
