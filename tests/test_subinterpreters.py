"""Each interpreter of a process has a pyepoll of its own, and from 3.12 on its own GIL."""

import os
import sys
import textwrap
import threading
from typing import Any

import pytest
from conftest import open_fds

import pyepoll

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

# A ghost, and its cure.
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
try:
    ep.register(2**20)
except OSError as error:
    assert "not open" in str(error)
else:
    raise AssertionError

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
while not other.stats()["waits"]:
    pass
other.close()
thread.join()
assert ends == [1]
ep.unregister(waker)
waker.close()
os.close(keep)
os.close(idle)
if {close}:
    ep.close()
"""


def interpreters() -> Any:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            return __import__(name)
        except ImportError:
            continue
    pytest.skip("a CPython without its module for interpreters")


def run_in_interpreter(program: str) -> None:
    """In a new one, which is destroyed then. It raises what the program raised, in words."""
    module: Any = interpreters()
    # With its own GIL: 3.13 has a name for it, 3.12 an argument. In 3.11 it would be one without threads.
    if sys.version_info >= (3, 13):
        number = module.create("isolated")
    else:
        number = module.create(isolated=sys.version_info >= (3, 12))
    try:
        path = f"import sys\nsys.path[:] = {sys.path!r}\n"
        # Up to 3.12 it raises; later it returns what was raised.
        failure = module.run_string(number, path + textwrap.dedent(program))
        if failure is not None:
            raise RuntimeError(failure.formatted)
    finally:
        module.destroy(number)


def test_the_interpreter_reports_what_fails() -> None:
    with pytest.raises(Exception, match="on purpose"):
        run_in_interpreter("raise RuntimeError('on purpose')")


@pytest.mark.parametrize("close", [True, False], ids=["closed", "left open"])
def test_one_after_another(close: bool) -> None:
    run_in_interpreter(SCENARIO.format(close=close))
    before = open_fds().keys()
    for _ in range(4):
        run_in_interpreter(SCENARIO.format(close=close))
    assert open_fds().keys() == before


def test_in_parallel() -> None:
    """Two interpreters each with an Epoll, and this one with one."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(2):
                run_in_interpreter(SCENARIO.format(close=True))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    fd = os.eventfd(1)
    with pyepoll.Epoll[int]() as ep:
        ep.register(fd, pyepoll.Event.IN)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert ep.poll(1) == [(fd, pyepoll.Event.IN)]
        for thread in threads:
            thread.join()
    os.close(fd)
    assert failures == []


def test_nothing_is_shared() -> None:
    """Another interpreter's number is a foreign epoll: its events come with the kernel's word."""
    fd = os.eventfd(1)
    with pyepoll.Epoll[Any]() as ep:
        ep.register(fd, pyepoll.Event.IN, "data")
        run_in_interpreter(
            f"""
            import os, pyepoll
            # The object takes its number with it when it goes, so it gets one of its own.
            ep = pyepoll.Epoll.fromfd(os.dup({ep.fileno()}))
            assert len(ep) == 0
            ((word, events),) = ep.poll(0)
            assert word & 0xffffffff == {fd}
            assert events is pyepoll.Event.IN
            """
        )
        assert ep.poll(0) == [("data", pyepoll.Event.IN)]
    os.close(fd)


def test_its_end_closes_no_stranger() -> None:
    """What wakes waiters was closed with all fds, as daemons do, and its number went to another file."""
    strangers = [os.open(os.devnull, os.O_RDONLY), os.eventfd(7)]
    for stranger in strangers:
        report, write = os.pipe()
        run_in_interpreter(
            f"""
            import os
            before = set(os.listdir("/proc/self/fd"))
            import pyepoll
            made = set(os.listdir("/proc/self/fd")) - before
            for fd in map(int, made):
                try:
                    os.dup2({stranger}, fd)
                    os.write({write}, b"%d " % fd)
                except OSError:
                    pass
            """
        )
        os.close(write)
        with open(report) as file:
            numbers = [int(number) for number in file.read().split()]
        assert numbers
        for number in numbers:
            assert os.path.sameopenfile(number, stranger)
            os.close(number)
    for stranger in strangers:
        os.close(stranger)
