"""Code that runs in the middle of the loop's own may change the loop: comparisons, selectors, the collector.

Each program runs in an interpreter of its own, which checks its memory: a mistake is a crash.
"""

import sys

import pytest
from support import processes


@pytest.fixture(autouse=True)
def checked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONMALLOC", "debug")


ARMED = """
from pyepoll.aio import EventLoop

armed = False
loop = EventLoop()
loop.set_debug(False)
original = loop._scheduled

class When(float):
    def __lt__(self, other):
        if armed:
            act()
        return float(self) < float(other)

def replace():
    global original
    original = None
    loop._scheduled = []

def delete():
    if hasattr(loop, "_scheduled"):
        del loop._scheduled

def fail():
    raise ValueError("not comparable")
"""


@pytest.mark.parametrize("act", ["replace", "delete"])
@pytest.mark.parametrize("call", ["push", "cancel", "turn"])
def test_comparison_may_drop_the_heap(call: str, act: str) -> None:
    program = f"""
import contextlib

act = {act}
if {call!r} == "turn":
    loop.call_at(0.0, int)
timers = [loop.call_at(When(1e9 + i), print) for i in range(50)]
timers = timers[1:2]
armed = True
with contextlib.suppress(RuntimeError):  # as heapq raises it
    if {call!r} == "push":
        loop.call_at(When(0), print)
    elif {call!r} == "cancel":
        timers[0].cancel()
    else:
        loop._run_once()
armed = False
loop._scheduled = []
loop.close()
print("done")
"""
    assert processes.run(ARMED + program) == "done\n"


def test_error_of_a_comparison_leaves_no_trace_of_a_cancelled_timer() -> None:
    program = """
timers = [loop.call_at(When(1e9 + i), print) for i in range(50)]
armed, act = True, fail
timers[3].cancel()
armed = False
print(timers[3].cancelled(), timers[3] in loop._scheduled, timers[3]._scheduled, loop._timer_cancelled_count)
loop.close()
"""
    assert processes.run(ARMED + program) == "True False False 0\n"


@pytest.mark.parametrize("name", ["_scheduled", "_clock_resolution", "_ready", "_selector"])
def test_selector_may_delete_what_the_turn_uses(name: str) -> None:
    """asyncio's error is raised."""
    program = f"""
import selectors
from pyepoll.aio import EventLoop

class Deletes(selectors.SelectSelector):
    def select(self, timeout=None):
        if hasattr(loop, {name!r}):
            delattr(loop, {name!r})
        return super().select(0)

loop = EventLoop(Deletes())
loop.set_debug(False)
loop.call_at(0.0, int)
saved = loop.{name}
try:
    loop._run_once()
    loop._run_once()
except AttributeError as error:
    print(error.name)
loop.{name} = saved
loop.close()
"""
    assert processes.run(program) == f"{name}\n"


@pytest.mark.parametrize("call", ["call_soon(ignore, handle)", "call_later(0, ignore, handle)"])
def test_long_chain_of_handles_can_be_deallocated(call: str) -> None:
    program = f"""
import gc
from pyepoll.aio import EventLoop

gc.disable()  # a free-threaded build traverses the whole chain each time

def ignore(handle):
    pass

loop = EventLoop()
loop.set_debug(False)
handle = None
for _ in range(300_000):
    handle = loop.{call}
loop.call_later(0.01, loop.stop)
loop.run_forever()
loop.close()
del handle
print("done")
"""
    assert processes.run(program) == "done\n"


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="a handle whose class is Python's: from CPython 3.14 on"
)
def test_constructor_of_a_handle_may_replace_the_queue() -> None:
    program = """
import asyncio.events
from pyepoll.aio import EventLoop

made = asyncio.events._ThreadSafeHandle.__init__

def replaces(self, *args):
    loop._ready = type(loop._ready)()
    made(self, *args)

asyncio.events._ThreadSafeHandle.__init__ = replaces
loop = EventLoop()
loop.set_debug(False)
for _ in range(100):
    loop.call_soon_threadsafe(int)
loop.close()
print("done")
"""
    assert processes.run(program) == "done\n"


COLLECTED = """
import gc
from pyepoll.aio import EventLoop

loop = EventLoop()
loop.set_debug(False)
act = None

def collecting(phase, info):
    global act
    if act is not None and phase == "start":
        todo, act = act, None
        todo()

gc.callbacks.append(collecting)

def within(run, todo):
    global act
    kept = [[(number, index, index) for number in range(3)] for index in range(1000)]
    act = todo
    gc.set_threshold(1)
    result = run()
    gc.set_threshold(100_000)
    act = None
    assert "NULL" not in repr(result)
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the collector runs within allocations: CPython 3.11")
@pytest.mark.parametrize(
    ("run", "todo"),
    [
        ("repr(loop._ready)", "loop._ready.extend(range(1000))"),
        ("repr(loop._ready)", "loop._ready.clear()"),
        ("loop.call_soon(int)", "setattr(loop, '_ready', type(loop._ready)())"),
        ("loop.call_later(5, int)", "setattr(loop, '_scheduled', [])"),
        ("handle._args", "setattr(handle, '_args', (9,))"),
        ("handle._args", "handle.cancel()"),
    ],
)
def test_collector_may_run_code_that_changes_the_loop(run: str, todo: str) -> None:
    program = f"""
for _ in range(300):
    loop._ready.extend(range(100))
    handle = loop.call_soon(print, 1, 2, 3)
    within(lambda: {run}, lambda: {todo})
    loop._ready.clear()
    loop._scheduled.clear()
loop.close()
print("done")
"""
    assert processes.run(COLLECTED + program) == "done\n"
