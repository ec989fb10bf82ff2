"""Python code that runs in the middle of a call finds no incomplete object, and may use any object."""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
from support.effort import Effort
from support.processes import run

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


# Every public call that returns a container, while another thread inspects the collector's objects.

CONTAINERS = {
    "Epoll.poll": "ep.poll(0)",
    "Epoll.poll of some": "ep.poll(0, 2)",
    "Epoll.wait": "list(ep.wait(0))",
    "Epoll.__iter__": "list(itertools.islice(ep, 3))",
    "a pair": "next(ep.wait(0))",
    "Epoll.poll of a foreign instance": "foreign.poll(0)",
    "Epoll.wait of a foreign instance": "list(foreign.wait(0))",
    "Epoll.stats": "ep.stats()",
    "Epoll.registrations": "list(ep.registrations)",
    "Registrations.keys": "list(ep.registrations.keys())",
    "Registrations.values": "list(ep.registrations.values())",
    "Registrations.items": "dict(ep.registrations.items())",
    "Registrations.__getitem__": "ep.registrations[fds[0]]",
    "Registrations.get": "ep.registrations.get(fds[0])",
    "EpollSelector.register": "(sel.unregister(fds[0]), sel.register(fds[0], 1, Data()))",
    "EpollSelector.modify": "(sel.modify(fds[0], 3, Data()), sel.modify(fds[0], 1))",
    "EpollSelector.select": "sel.select(0)",
    "EpollSelector.get_key": "sel.get_key(fds[0])",
    "EpollSelector.get_map": "dict(sel.get_map())",
    "EpollSelector.get_map().values": "list(sel.get_map().values())",
    "the loop's turn": "(loop.call_soon(loop.stop), loop.run_forever(), [1])",
    "EventBuffer": "(raw.epoll_wait(ep._instance_fd(), buffer, 0), list(buffer))",
}

CONTAINER = """
import itertools, pyepoll.aio
from pyepoll import raw

looks, busy = 0, threading.local()
see = look
def look():
    global looks
    if not getattr(busy, "looks", False):  # Its own objects are collected, too.
        busy.looks = True
        see()
        looks += 1
        busy.looks = False

stock = select.epoll()
foreign = pyepoll.Epoll.fromfd(os.dup(stock.fileno()))
buffer = raw.EventBuffer(8)
loop = pyepoll.aio.EventLoop()
for fd in fds:
    ep.register(fd, Event.IN, [ep])
    sel.register(fd, 1, [sel])
    loop.add_reader(fd, lambda: [loop])
for fd in fds[:2]:
    stock.register(fd, Event.IN)
foreign.register(fds[2], Event.IN, "known")

def call():
    made = {call}
    assert made

call()
gc.collect()
gc.freeze()  # There is less to look through.

# Code that the call itself runs: a factory of masks, which is asked again whenever there is another.
for _ in range(2):
    _epoll._use_events(Mask)
    call()
_epoll._use_events(Event)

# Finalizers: of closed objects that are found so, and of garbage.
def lose():
    for each in ep, foreign, sel:
        fd = os.eventfd(1)
        each.register(fd, 1, Data())
        kept.append(os.dup(fd))
        os.close(fd)
kept = []
lose()
for _ in range(20):
    call()
threshold = gc.get_threshold()
def call_and_collect(*garbage):
    # The next new object starts a collection. A list that was in use before is none, and without a GIL a
    # collection also waits until memory has grown: if the call starts none, one follows it.
    gc.disable()
    for each in garbage:
        cycle = [each]
        cycle.append(cycle)
        del cycle
    more = [[] for _ in range(200)]
    del garbage, each
    gc.enable()
    call()
    gc.collect()
gc.set_threshold(1, 0)
before = looks
for _ in range(20):
    call_and_collect(Data())
gc.set_threshold(*threshold)
assert looks > before

# The collector, in each of its turns.
def callback(phase, info):
    look()
gc.callbacks.append(callback)
gc.set_threshold(1, 0)
before = looks
for _ in range(10):
    call_and_collect([])
gc.callbacks.clear()
gc.set_threshold(*threshold)
assert looks > before

# Other threads.
over = False
def watch():
    while not over:
        look()
threads = [threading.Thread(target=watch) for _ in range(2)]
sys.setswitchinterval(1e-6)
before = looks
for thread in threads: thread.start()
calls = 0
while looks < before + 20 or calls < 50:
    _epoll._use_events(Mask if calls % 2 else Event)
    call()
    calls += 1
over = True
for thread in threads: thread.join()
assert looks >= before + 20

for fd in fds: loop.remove_reader(fd)
loop.close(), sel.close(), foreign.close(), ep.close(), stock.close()
"""


@pytest.mark.parametrize("call", CONTAINERS)
def test_no_container_is_found_before_it_is_filled(call: str) -> None:
    """By a finalizer, a callback of the collector, another thread, or code that the call runs."""
    run(LOOK + CONTAINER.replace("{call}", CONTAINERS[call]))


@pytest.fixture
def masks() -> Iterator[list[Any]]:
    """The calls that run whenever a mask is first reported, each made once."""
    calls: list[Any] = []

    class Mask(int):
        def __new__(cls, value: int) -> Self:
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


def test_an_iterator_stepped_in_its_own_step_yields_each_event_once(ready: Ready, masks: list[Any]) -> None:
    """Every event comes out once, of the inner step or of the outer one."""
    iterator = ready.ep.wait(0)
    got: list[int] = []
    masks.append(lambda: got.append(next(iterator)[0]))
    got.extend(data for data, _ in iterator)
    assert sorted(got) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_failed_nested_step_loses_no_event(ready: Ready, masks: list[Any], steps: int) -> None:
    """The event whose step failed is reported again; each of the others exactly once."""
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


def test_a_failed_step_is_repeated_by_the_next(ready: Ready, masks: list[Any]) -> None:
    """The same event is the next one again."""
    iterator = ready.ep.wait(0)
    masks.append(refuse)
    with pytest.raises(Refused):
        next(iterator)
    assert [data for data, _ in iterator] == [0, 1, 2, 3, 4]


def test_a_failed_step_survives_that_its_batch_is_replaced(masks: list[Any]) -> None:
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


def test_an_epoll_closed_in_its_own_step_ends_the_iteration(ready: Ready, masks: list[Any]) -> None:
    iterator = ready.ep.wait(0)
    masks.append(ready.ep.close)
    assert list(iterator) == []


def test_poll_within_a_poll_loses_no_event(ready: Ready, masks: list[Any]) -> None:
    got: list[Any] = []
    masks.append(lambda: got.extend(ready.ep.poll(0)))
    assert sorted(data for data, _ in ready.ep.poll(0)) == [0, 1, 2, 3, 4]
    assert got == []
    gc.collect()


# No lock is held while Python code runs: where it uses the same selector, nothing waits for itself.

SELECTOR = """
import os, sys, threading
import pyepoll

class Number(int):
    __slots__ = ()
    def __hash__(self):
        use()
        return int.__hash__(self)
    def __eq__(self, other):
        use()
        return int.__eq__(self, other)

depth, uses = 0, 0
def use():
    global depth, uses
    uses += 1
    if depth < 2 and uses % 7 < 3:  # A look-up begins again whenever the dict has changed.
        depth += 1
        sel.select(0)
        calls = sel.get_key, sel.unregister, lambda fd: sel.register(fd, 1), lambda fd: sel.modify(fd, 1, 5)
        for call in calls:
            try:
                call(fds[0])
            except (KeyError, ValueError, OSError):
                pass
        sel._selector = sel._selector
        depth -= 1

sel = pyepoll.EpollSelector()
fds = [os.eventfd(1) for _ in range(3)]
for fd in fds: sel.register(fd, 1)

def attempt(*calls):
    for call in calls:
        try:
            call()
        except (KeyError, ValueError, OverflowError, OSError):
            pass

def agree():
    assert set(sel.get_map()) == {fd for fd, key in sel._selector.registrations.items()}
    assert all(sel.get_key(fd) is key for fd, (_, key) in sel._selector.registrations.items())
"""

SELECTOR_USES = {
    "a number that does not fit": """
        for huge in (2**31, 2**63, 2**100):
            attempt(lambda: sel.unregister(Number(huge)), lambda: sel.modify(Number(huge), 1),
                    lambda: sel.get_key(Number(huge)), lambda: sel.register(Number(huge), 1))
    """,
    "a number that does": """
        for fd in fds:
            attempt(lambda: sel.modify(Number(fd), 1, "x"), lambda: sel.unregister(Number(fd)),
                    lambda: sel.register(Number(fd), 1))
    """,
    "a key that is equal to many": """
        # Its hash is that of an fd, so each look-up of the fd compares the two.
        for fd in fds:
            key = sel.unregister(fd)
            sel._fd_to_key[Number(fd)] = key
            attempt(lambda: sel.register(fd, 1), lambda: sel.modify(fd, 1, "x"), lambda: sel.unregister(fd))
            for number in list(sel._fd_to_key):
                if type(number) is Number:
                    dict.__delitem__(sel._fd_to_key, number)
            attempt(lambda: sel.register(fd, 1))
    """,
    "a closed file under a strange key": """
        class File:
            number = fds[1]
            def fileno(self):
                return self.number
        file = File()
        sel.unregister(fds[1])
        key = sel.register(file, 1)
        del sel._fd_to_key[fds[1]]
        sel._fd_to_key[Number(fds[1])] = key
        File.number = -1
        attempt(lambda: sel.modify(file, 1, "x"), lambda: sel.unregister(file))
        sel._fd_to_key.clear()
        for fd in fds: attempt(lambda: sel._selector.unregister(fd))
    """,
}


@pytest.mark.parametrize("use", SELECTOR_USES)
def test_python_code_of_a_key_uses_the_selector(use: str) -> None:
    run(SELECTOR + "".join(line[8:] + "\n" for line in SELECTOR_USES[use].splitlines()) + "\nagree()\n")


def test_threads_that_change_one_fd_leave_dict_and_registrations_equal(effort: Effort) -> None:
    """The dict of keys and the registrations are the same, in whatever order the threads ran."""
    fd = os.eventfd(1)
    with pyepoll.EpollSelector() as sel:

        def change() -> None:
            for i in range(effort(300, 5000)):
                calls: list[Any] = [
                    lambda: sel.register(fd, 1),
                    lambda i=i: sel.modify(fd, 1, i),
                    lambda: sel.modify(fd, 2),
                    lambda: sel.unregister(fd),
                ]
                for call in calls:
                    with contextlib.suppress(KeyError, FileNotFoundError):
                        call()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(effort(3, 20)):
                threads = [threading.Thread(target=change) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert {n: key for n, (_, key) in sel._selector.registrations.items()} == dict(sel._fd_to_key)
        finally:
            sys.setswitchinterval(interval)
    os.close(fd)
