"""Interpreters beside this one, and programs for them."""

import resource
import sys
import textwrap
from typing import Any

import pytest

SCENARIO = """
import gc, os, sys, threading
import pyepoll
from pyepoll import Event

ep = pyepoll.Epoll()
fd, idle = os.eventfd(1), os.eventfd(0)
data = [ep]
ep.register(fd, Event.IN | Event.OUT, data)
ep.register(idle, Event.IN | Event.ET)
assert ep.poll(0) == [(data, Event.IN | Event.OUT)]
assert type(ep.poll(0)[0][1]) is Event
assert ep.poll(0)[0] is next(iter(ep))
ep.modify(fd, Event.IN | Event.ONESHOT)
assert [events for _, events in ep.wait(0.01)] == [Event.IN]
assert ep.poll(0.01) == []
ep.rearm(fd)
assert ep.poll(0) == [(data, Event.IN)]

# A stale registration, and the rebuild that removes it.
keep = os.dup(fd)
ep.rearm(fd)
os.close(fd)
try:
    ep.unregister(fd)
except OSError:
    pass
for _ in range(10):
    ep.poll(0)
assert list(ep.registrations) == [idle]

waker = pyepoll.Waker()
ep.register(waker, Event.IN, "waker")
waker.wake()
assert ep.poll(1) == [("waker", Event.IN)]
timer = pyepoll.Timer(0.001)
child = pyepoll.Child(os.getpid())
for each in timer, child:
    ep.register(each, Event.IN, each)
ep.unregister(waker)
assert ep.poll(10) == [(timer, Event.IN)]
assert timer.read() == 1 and not child.read()
ep.register(waker, Event.IN)
try:
    ep.register(2**20)
except OSError as error:
    assert "not open" in str(error)
else:
    raise AssertionError

sel = pyepoll.EpollSelector()
key = sel.register(keep, 1, [sel], Event.ET)
assert sel.select(0) == [(key, 1)]
assert sel.modify(keep, 1, data).data is data
assert [key.data for key, events in sel.select(0)] == [data]

# A thread waits, and this one closes.
other = pyepoll.Epoll()
ends = []
def wait():
    try:
        other.poll()
    except ValueError:
        ends.append(1)
thread = threading.Thread(target=wait)
thread.start()
while not other.stats().waits:
    pass
other.close()
thread.join()
assert ends == [1]
for each in waker, timer, child:
    ep.unregister(each)
    each.close()
os.close(keep)
os.close(idle)
if {close}:
    sel.close()
    ep.close()
"""

IDLE = """
import gc, os, sys, threading
import pyepoll
from pyepoll import Event
"""


def interpreters() -> Any:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            return __import__(name)
        except ImportError:
            continue
    pytest.skip("a CPython without its module for interpreters")


def run_in_interpreter(program: str) -> None:
    """In a new one, which is destroyed then. Raises the program's exception as text."""
    module: Any = interpreters()
    # With its own GIL: 3.13 has a name for it, 3.12 an argument. In 3.11 it would be one without threads.
    if sys.version_info >= (3, 13):
        number = module.create("isolated")
    else:
        number = module.create(isolated=sys.version_info >= (3, 12))
    try:
        path = f"import sys\nsys.path[:] = {sys.path!r}\n"
        # Up to 3.12 it raises; later it returns the exception.
        failure = module.run_string(number, path + textwrap.dedent(program))
        if failure is not None:
            raise RuntimeError(failure.formatted)
    finally:
        module.destroy(number)


def memory_of(program: str, times: int) -> int:
    """How much each of so many interpreters leaves behind, in bytes."""

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    for _ in range(5):
        run_in_interpreter(program)
    before = resident()
    for _ in range(times):
        run_in_interpreter(program)
    return (resident() - before) // times
