"""asyncio's semantics, where a loop in C could differ: order, signals, what others look at.

Each scenario runs on asyncio's own loop as well, and must have the same result there.
"""

import asyncio
import asyncio.trsock
import contextlib
import contextvars
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.faults import PATIENCE, Side, closing
from support.loops import Plain, connection, on, same, soon, turns

from pyepoll import aio

BASES: dict[str, Any] = {"asyncio": asyncio.SelectorEventLoop, "pyepoll": aio.EventLoop}


# Order.


def test_a_turn_runs_ready_callbacks_then_events_then_due_timers() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        near, peer = socket.socketpair()
        with closing(near, peer):

            def read() -> None:
                order.append("event")
                loop.remove_reader(near)

            def first() -> None:
                """The next turn has a ready callback, an event and a timer that is due."""
                loop.call_later(0, order.append, "timer")
                loop.add_reader(near, read)
                peer.send(b"x")
                loop.call_soon(order.append, "ready")
                loop.call_soon(lambda: loop.call_soon(order.append, "next turn"))

            loop.call_soon(first)
            await turns(6)
        return order

    assert same(scenario) == ["ready", "event", "timer", "next turn"]


def test_a_callback_can_cancel_others_of_its_turn() -> None:
    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        ran: list[int] = []
        handles: list[asyncio.Handle] = []

        def run(number: int) -> None:
            ran.append(number)
            if number == 1:
                handles[2].cancel()
                handles[4].cancel()

        handles += [loop.call_soon(run, number) for number in range(4)]
        handles.append(loop.call_later(0, run, 4))
        await asyncio.sleep(0.01)
        return ran

    assert same(scenario) == [0, 1, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_leaves_the_loop_keeps_the_rest_of_the_turn(error: type[BaseException]) -> None:
    results = []
    for base in BASES.values():
        loop = base()
        ran: list[Any] = []

        def fail() -> None:
            raise error

        loop.call_later(0, ran.append, "timer")
        for callback in (lambda: ran.append(0)), fail, (lambda: ran.append(1)), loop.stop:  # noqa: B023
            loop.call_soon(callback)
        with pytest.raises(error):
            loop.run_forever()
        before = list(ran)
        loop.run_forever()
        results.append((before, sorted(ran, key=str)))
        loop.close()
    assert results[0] == results[1]
    assert results[1][1] == [0, 1, "timer"]


# Signals.


@pytest.mark.parametrize("how", ["add_signal_handler", "signal.signal"])
def test_a_signal_is_handled_while_the_loop_never_waits(how: str) -> None:
    """During a second of sleep(0) at most, where a loop could do without any system call."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        before = signal.getsignal(signal.SIGTERM)
        if how == "add_signal_handler":
            loop.add_signal_handler(signal.SIGTERM, seen.append, "SIGTERM")
        else:
            signal.signal(signal.SIGTERM, lambda *_: seen.append("SIGTERM"))
        try:
            end = time.monotonic() + 1
            loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            while not seen and time.monotonic() < end:
                await asyncio.sleep(0)
            return seen
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)

    assert same(scenario) == ["SIGTERM"]


def test_call_soon_threadsafe_is_handled_while_the_loop_never_waits() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        loop.run_in_executor(None, loop.call_soon_threadsafe, seen.append, "thread")
        end = time.monotonic() + PATIENCE
        while not seen and time.monotonic() < end:
            await asyncio.sleep(0)
        return seen

    assert same(scenario) == ["thread"]


# Attributes that others look at.


def test_ready_scheduled_and_selector_show_what_waits() -> None:
    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        with closing(near, peer):
            later = loop.call_later(100, int)
            soon_ = loop.call_soon(int)
            loop.add_reader(near, int)
            seen: list[Any] = [
                *(soon_ in loop._ready, list(loop._ready)[-1] is soon_, len(loop._ready)),
                *(later in loop._scheduled, len(loop._scheduled)),
                loop._scheduled[0].when() == later.when(),
                isinstance(loop._selector, selectors.BaseSelector),
                near.fileno() in loop._selector.get_map(),
                loop._selector.get_key(near).events,
                loop._selector.get_key(near.fileno()).data[0]._callback is int,
            ]
            loop.remove_reader(near)
            seen.append(near.fileno() in loop._selector.get_map())
            later.cancel()
            await turns()
        return [*seen, soon_ in loop._ready]

    assert same(scenario) == [True, True, 1, True, 1, True, True, True, 1, True, False, False]


def test_objects_are_of_asyncios_classes() -> None:
    async def scenario() -> list[bool]:
        loop = asyncio.get_running_loop()
        udp: Any = (
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        )[0]
        read, write = os.pipe()
        pipe = (await loop.connect_read_pipe(asyncio.Protocol, open(read, "rb")))[0]
        out = (await loop.connect_write_pipe(asyncio.BaseProtocol, open(write, "wb")))[0]
        timer = loop.call_later(100, int)
        timer.cancel()
        async with connection(Plain()) as (transport, _):
            found = [
                isinstance(loop.call_soon(int), asyncio.Handle),
                isinstance(loop.call_soon_threadsafe(int), asyncio.Handle),
                isinstance(timer, asyncio.TimerHandle),
                isinstance(transport, asyncio.Transport),
                isinstance(udp, asyncio.DatagramTransport) or sys.version_info < (3, 12),
                isinstance(pipe, asyncio.ReadTransport),
                isinstance(out, asyncio.WriteTransport),
                *(
                    isinstance(each.get_extra_info("socket"), asyncio.trsock.TransportSocket)
                    for each in (transport, udp)
                ),
                isinstance(loop.create_future(), asyncio.Future),
                isinstance(asyncio.current_task(), asyncio.Task),
            ]
        for each in udp, pipe, out:
            each.close()
        await turns()
        return found

    assert same(scenario) == [True] * 11


@pytest.mark.parametrize("install", [sys.settrace, sys.setprofile])
def test_tracing_and_profiling_see_the_callbacks(install: Callable[[Any], None]) -> None:
    if sys.gettrace() is not None:
        pytest.skip("another tracer is installed")

    def soon_callback() -> None: ...
    def timer_callback() -> None: ...
    def event_callback() -> None: ...

    class Protocol(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        wanted = {"soon_callback", "timer_callback", "event_callback", "data_received"}
        seen: list[str] = []

        def trace(frame: Any, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_name in wanted:
                seen.append(frame.f_code.co_name)

        near, peer = socket.socketpair()
        async with connection(protocol := Protocol()) as (_, other):
            with closing(near, peer):
                install(trace)
                try:
                    loop.call_soon(soon_callback)
                    loop.call_later(0, timer_callback)
                    loop.add_writer(near, event_callback)
                    other.send(b"data")
                    await soon(lambda: protocol.has(4))
                finally:
                    install(None)
                loop.remove_writer(near)
        return sorted(set(seen))

    assert same(scenario) == ["data_received", "event_callback", "soon_callback", "timer_callback"]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="CPython 3.15 has added the argument")
def test_a_transport_made_with_a_context_calls_in_it() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def scenario() -> list[str]:
        loop: Any = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        seen: list[str] = []

        class Notes(Plain):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                seen.append(variable.get())

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                seen.append(variable.get())

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                seen.append(variable.get())

        near, peer = socket.socketpair()
        near.setblocking(False)
        with closing(peer):
            transport = loop._make_socket_transport(near, notes := Notes(), context=context)
            peer.send(b"data")
            await soon(lambda: notes.has(4))
            transport.close()
            await soon(notes.lost)
        return seen

    assert same(scenario) == ["given"] * 3


def test_the_patience_of_a_side_ends_a_scenario() -> None:
    """A wait without end is a failure, or no fault would be seen."""
    with contextlib.suppress(AssertionError):
        Side("asyncio", 0.05).run(lambda: asyncio.sleep(100))
        pytest.fail("it was waited for")
    assert on("pyepoll", lambda: asyncio.sleep(0, "result")) == "result"
