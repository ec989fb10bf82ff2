"""Python code runs in the middle of many calls: it finds no half-made object, and may use what is in use."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import run

import pyepoll
from pyepoll import Event, _epoll

LOOK = """
import gc, os, select, sys, threading
import pyepoll
from pyepoll import Event, _epoll

def look():
    for each in gc.get_objects():
        if type(each) in (list, tuple):
            [*each]  # A NULL in it ends the process.
        elif isinstance(each, _epoll.Epoll):
            each.stats(), len(each), each.closed, 0 in each, list(each.registrations)
        elif isinstance(each, pyepoll.EpollSelector):
            dict(each._fd_to_key), repr(each)

class Data:
    def __del__(self):
        look()

class Mask(int):
    def __new__(cls, value):
        look()
        return int.__new__(cls, value)

fds = [os.eventfd(1) for _ in range(3)]
masks = [Event.IN, Event.OUT, Event.IN | Event.OUT]
ep = pyepoll.Epoll()
sel = pyepoll.EpollSelector()
"""

FILLS = {
    "a new mask": """
        _epoll._use_events(Mask)
        for fd, mask in zip(fds, masks): ep.register(fd, mask, "data")
        assert len(ep.poll(0)) == 3
        _epoll._use_events(Mask)
        assert len(list(ep.wait(0))) == 3
    """,
    "a closed fd": """
        for fd in fds: ep.register(fd, Event.IN, Data())
        keep = os.dup(fds[0])
        os.close(fds[0])
        for _ in range(20): ep.poll(0)
        assert len(ep) == 2
    """,
    "a closed fd of a selector": """
        for fd in fds: sel.register(fd, 1, Data())
        keep = os.dup(fds[0])
        os.close(fds[0])
        for _ in range(20): sel.select(0)
        assert len(sel.select(0)) == 2
    """,
    "new objects": """
        gc.callbacks.append(lambda phase, info: look())
        gc.set_threshold(1)
        for fd in fds: ep.register(fd, Event.IN, [ep])
        stock = select.epoll()
        for _ in range(20):
            ep.poll(0), list(ep.wait(0)), ep.registrations[fds[0]], list(ep.registrations)
            pyepoll.Epoll.fromfd(ep.fileno()), pyepoll.Epoll.fromfd(os.dup(stock.fileno()))
            made = pyepoll.EpollSelector()
            made.register(fds[1], 1, [made])
            made.select(0)
            made.modify(fds[1], 2)
            made.close()
    """,
    "another thread": """
        done = []
        def watch():
            while not done: look()
        threads = [threading.Thread(target=watch) for _ in range(2)]
        sys.setswitchinterval(1e-6)
        for thread in threads: thread.start()
        for fd in fds: ep.register(fd, Event.IN, [ep])
        stock = select.epoll()
        for _ in range(50):
            for fd in fds: ep.modify(fd, Event.IN, [ep])
            ep.poll(0), list(ep.wait(0)), list(ep.registrations)
            pyepoll.Epoll.fromfd(os.dup(stock.fileno()))
            made = pyepoll.EpollSelector()
            made.register(fds[1], 1, [made])
            made.select(0)
            made.close()
        done.append(1)
        for thread in threads: thread.join()
    """,
}


@pytest.mark.parametrize("fill", FILLS)
def test_no_incomplete_object_is_found(fill: str) -> None:
    run(LOOK + "".join(line[8:] + "\n" for line in FILLS[fill].splitlines()))


@pytest.fixture
def masks() -> Iterator[list[Any]]:
    """What runs whenever a mask is first reported: calls, of which each is made once."""
    calls: list[Any] = []

    class Mask(int):
        def __new__(cls, value: int) -> "Mask":
            if calls:
                calls.pop(0)()
            return int.__new__(cls, value)

    _epoll._use_events(Mask)  # type: ignore[arg-type]
    yield calls
    _epoll._use_events(Event)


class Ready:
    """An epoll with so many fds that are ready, edge-triggered, each with a mask of its own."""

    MASKS = (Event.IN, Event.OUT, Event.IN | Event.OUT, Event.IN | Event.RDNORM, Event.OUT | Event.WRNORM)

    def __init__(self, mode: Event, count: int = 5) -> None:
        self.ep: pyepoll.Epoll[Any] = pyepoll.Epoll()
        self.fds = [os.eventfd(1) for _ in range(count)]
        for i, fd in enumerate(self.fds):
            self.ep.register(fd, self.MASKS[i] | mode, i)

    def close(self) -> None:
        self.ep.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture(params=[Event.ET, Event.ONESHOT], ids=["edge", "one-shot"])
def ready(request: pytest.FixtureRequest) -> Iterator[Ready]:
    ready = Ready(request.param)
    yield ready
    ready.close()


class Refused(Exception):
    pass


def refuse() -> None:
    raise Refused


def test_an_iterator_stepped_in_its_own_step(ready: Ready, masks: list[Any]) -> None:
    """Every event comes out once, of the inner step or of the outer one."""
    iterator = ready.ep.wait(0)
    got: list[int] = []
    masks.append(lambda: got.append(next(iterator)[0]))
    got.extend(data for data, _ in iterator)
    assert sorted(got) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_failed_step_in_which_the_iterator_was_stepped(ready: Ready, masks: list[Any], steps: int) -> None:
    """The event whose step failed is reported again; the others neither twice nor never."""
    iterator = ready.ep.wait(0)
    got: list[int] = []

    def step() -> None:
        got.extend(next(iterator)[0] for _ in range(steps))
        refuse()

    masks.append(step)
    with pytest.raises(Refused):
        next(iterator)
    got.extend(data for data, _ in iterator)
    assert len(got) == 4
    got.extend(data for data, _ in ready.ep.wait(0))
    assert sorted(got) == [0, 1, 2, 3, 4]


def test_a_failed_step_that_nobody_went_past(ready: Ready, masks: list[Any]) -> None:
    """The same event is the next one again."""
    iterator = ready.ep.wait(0)
    masks.append(refuse)
    with pytest.raises(Refused):
        next(iterator)
    assert [data for data, _ in iterator] == [0, 1, 2, 3, 4]


def test_a_failed_step_after_which_the_batch_is_another(masks: list[Any]) -> None:
    """The inner steps use the batch up, and fetch one that is larger and elsewhere in memory."""
    ready = Ready(Event.ET, 1)
    more = [os.eventfd(1) for _ in range(200)]
    iterator = iter(ready.ep)
    got: list[Any] = []

    def step() -> None:
        for fd in more:
            ready.ep.register(fd, Event.IN | Event.ET, fd)
        got.append(next(iterator)[0])
        refuse()

    masks.append(step)
    with pytest.raises(Refused):
        next(iterator)
    got.extend(next(iterator)[0] for _ in range(199))
    assert sorted(got) == more
    assert next(iterator)[0] == 0, "its edge is reported again"
    assert ready.ep.poll(0) == []
    ready.close()
    for fd in more:
        os.close(fd)


def test_closed_in_its_own_step(ready: Ready, masks: list[Any]) -> None:
    iterator = ready.ep.wait(0)
    masks.append(ready.ep.close)
    assert list(iterator) == []


def test_poll_in_a_poll(ready: Ready, masks: list[Any]) -> None:
    got: list[Any] = []
    masks.append(lambda: got.extend(ready.ep.poll(0)))
    assert sorted(data for data, _ in ready.ep.poll(0)) == [0, 1, 2, 3, 4]
    assert got == []
    gc.collect()


