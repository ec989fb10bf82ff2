"""Clocks and methods that a program replaces are used by our loop as by asyncio's own.

Each scenario runs on asyncio's own loop as well, and must have the same result there.
"""

import asyncio
import collections
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.faults import closing, pending
from support.loops import same, turns

from pyepoll import aio

BASES: dict[str, Any] = {"asyncio": asyncio.SelectorEventLoop, "pyepoll": aio.EventLoop}


def same_in(make: Callable[[Any], Any], scenario: Callable[[Any], Any]) -> Any:
    """The result of a coroutine function in the loops that `make` returns: it must be the same in both."""
    results = {}
    for name, base in BASES.items():
        with asyncio.Runner(loop_factory=lambda base=base: make(base)) as runner:  # type: ignore[misc]
            results[name] = runner.run(scenario(runner.get_loop()))
    assert results["pyepoll"] == results["asyncio"]
    return results["pyepoll"]


# Clocks.


class Moved:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.real = time.monotonic

    def __call__(self) -> float:
        return self.real() + self.offset


async def hour_passes(loop: Any, clock: Moved) -> list[str]:
    """A timer of an hour is due when the clock says so."""
    ran: list[str] = []
    loop.call_later(3600, ran.append, "hour")
    loop.call_at(loop.time() + 7200, ran.append, "two hours")
    await turns()
    assert ran == []
    clock.offset = 3700
    await turns()
    return ran


def test_an_overridden_clock_moves_the_timers() -> None:
    clock = Moved()

    def make(base: Any) -> Any:
        clock.offset = 0
        return type("Loop", (base,), {"time": lambda self: clock()})()

    assert same_in(make, lambda loop: hour_passes(loop, clock)) == ["hour"]


def test_a_clock_of_the_instance_moves_the_timers() -> None:
    clock = Moved()

    def make(base: Any) -> Any:
        clock.offset = 0
        loop = base()
        loop.time = clock
        return loop

    assert same_in(make, lambda loop: hour_passes(loop, clock)) == ["hour"]


def test_a_replaced_time_monotonic_moves_the_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As freezegun and time-machine do, after the loop was made."""
    clock = Moved()

    def make(base: Any) -> Any:
        clock.offset = 0
        monkeypatch.setattr(time, "monotonic", clock.real)
        return base()

    async def scenario(loop: Any) -> list[str]:
        monkeypatch.setattr(time, "monotonic", clock)
        assert loop.time() == pytest.approx(clock(), abs=10)
        ran = await hour_passes(loop, clock)
        assert loop.time() == pytest.approx(clock(), abs=10)
        return ran

    assert same_in(make, scenario) == ["hour"]


# Methods that a program replaces.


async def exercise(loop: Any) -> None:
    """Use most of the loop, in an order that does not depend on the speed."""
    near, peer = socket.socketpair()
    near.setblocking(False)
    with closing(near, peer):
        loop.call_soon(int)
        loop.call_soon_threadsafe(int)
        loop.call_later(0, int)
        loop.call_at(loop.time(), int)
        await loop.create_task(asyncio.sleep(0))
        loop.create_future().cancel()
        await loop.run_in_executor(None, int)
        loop.add_reader(near, int)
        loop.remove_reader(near)
        loop.add_writer(near, int)
        loop.remove_writer(near)
        peer.send(b"data")
        assert await loop.sock_recv(near, 10) == b"data"
        await loop.sock_sendall(near, b"data")
        await asyncio.wait_for(asyncio.sleep(0), 10)
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)  # In a thread.


HOOKS = [
    *("call_soon", "call_soon_threadsafe", "call_later", "call_at", "create_task", "create_future"),
    *("run_in_executor", "add_reader", "remove_reader", "add_writer", "remove_writer"),
    *("sock_recv", "sock_sendall", "getaddrinfo", "time", "_run_once", "_add_callback", "_process_events"),
    *("_call_soon", "_add_reader", "_remove_reader", "_add_writer", "_remove_writer"),
    *("_timer_handle_cancelled", "_write_to_self", "_check_closed", "get_debug", "stop", "is_closed"),
]
AS_OFTEN = {"call_soon", "call_soon_threadsafe", "create_task", "create_future", "run_in_executor", "call_at"}
"""These are called as often as by asyncio's own loop in a scenario whose turns vary."""


@pytest.mark.parametrize("where", ["subclass", "instance"])
@pytest.mark.parametrize("hook", [pytest.param(hook, marks=pending(f"hooks: {hook}")) for hook in HOOKS])
def test_a_replaced_method_is_called_as_by_asyncio(hook: str, where: str) -> None:
    calls: dict[Any, int] = collections.Counter()

    def make(base: Any) -> Any:
        def replaced(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls[base] += 1
            return getattr(base, hook)(self, *args, **kwargs)

        if where == "subclass":
            return type("Loop", (base,), {hook: replaced})()
        loop = base()
        setattr(loop, hook, lambda *args, **kwargs: replaced(loop, *args, **kwargs))
        return loop

    same_in(make, exercise)
    stock, ours = (calls[base] for base in BASES.values())
    assert bool(ours) == bool(stock), f"{hook}: asyncio calls it {stock} times, pyepoll {ours} times"
    if hook in AS_OFTEN:
        assert ours == stock


def test_a_replaced_socket_getaddrinfo_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a numeric address, for which a loop needs no resolver."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def scenario() -> list[str]:
        asked.clear()
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        return list(asked)

    assert same(scenario) == ["127.0.0.1", "localhost"]


def test_a_replaced_handle_run_runs_each_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    real: Any = asyncio.Handle._run

    def run(self: Any) -> None:
        ran.append(self._callback)
        real(self)

    async def scenario() -> list[bool]:
        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", run)
            ran.clear()
            callbacks = [lambda: None, lambda: 1, lambda: 2]
            loop.call_soon(callbacks[0])
            loop.call_later(0, callbacks[1])
            loop.call_soon_threadsafe(callbacks[2])
            await asyncio.sleep(0.01)
            return [callback in ran for callback in callbacks]

    assert same(scenario) == [True] * 3
