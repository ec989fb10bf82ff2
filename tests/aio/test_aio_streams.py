"""Data for asyncio's streams, which C passes to the reader: as asyncio's code does, in every state of it."""

import asyncio
import asyncio.futures
import contextlib
import os
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from support.loops import FACTORIES, complaints, connection, on, plain, same, soon, turns
from support.processes import run

PIECES = b"one", b"two" * 10


class Peculiar(asyncio.StreamReader):
    """A reader that is not exactly asyncio's."""

    def feed_data(self, data: Any) -> None:
        super().feed_data(data.upper())


class PeculiarProtocol(asyncio.StreamReaderProtocol):
    def data_received(self, data: bytes) -> None:
        super().data_received(data.title())


class PeculiarBytes(bytearray):
    """A buffer that is not exactly a bytearray."""


class Ends:
    """A reader and its protocol, in a state of which each test makes another."""

    def __init__(self, reader: Any, protocol: Any) -> None:
        self.reader = reader
        self.protocol = protocol
        self.calls: list[Any] = []
        self.kept: list[Any] = []

    def waiter(self, future: Any) -> None:
        self.reader._waiter = future
        self.kept.append(future)


def unchanged(ends: Ends) -> None:
    pass


def waited_for(ends: Ends) -> None:
    ends.waiter(asyncio.get_running_loop().create_future())


def cancelled(ends: Ends) -> None:
    waited_for(ends)
    ends.kept[0].cancel()


def done(ends: Ends) -> None:
    waited_for(ends)
    ends.kept[0].set_result(1)


def future_in_python(ends: Ends) -> None:
    ends.waiter(asyncio.futures._PyFuture(loop=asyncio.get_running_loop()))  # type: ignore[attr-defined]


def future_of_a_subclass(ends: Ends) -> None:
    class Future(asyncio.Future[Any]):
        def set_result(self, result: Any) -> None:
            ends.calls.append(result)
            super().set_result(result)

    ends.waiter(Future())


def ended(ends: Ends) -> None:
    ends.reader.feed_eof()


def failed(ends: Ends) -> None:
    ends.reader.set_exception(ValueError("of the test"))


def holding(ends: Ends) -> None:
    ends.reader.feed_data(b"before")


def narrow(ends: Ends) -> None:
    """It has no room for the second piece: the transport is paused."""
    ends.reader._limit = 3


def narrower(ends: Ends) -> None:
    ends.reader._limit = 1


def without_limit(ends: Ends) -> None:
    ends.reader._limit = 1 << 100


def limited_by_a_float(ends: Ends) -> None:
    ends.reader._limit = 2.5


def without_transport(ends: Ends) -> None:
    """As after a transport that cannot be paused."""
    ends.reader._transport = None
    ends.reader._limit = 1


def viewed(ends: Ends) -> None:
    """A buffer that cannot grow."""
    holding(ends)
    ends.kept.append(memoryview(ends.reader._buffer))


def another_buffer(ends: Ends) -> None:
    ends.reader._buffer = PeculiarBytes()


def incomplete(ends: Ends) -> None:
    del ends.reader._waiter


def referred_to_by_a_proxy(ends: Ends) -> None:
    ends.protocol._stream_reader_wr = weakref.proxy(ends.reader)


def referred_to_peculiarly(ends: Ends) -> None:
    class Reference(weakref.ref[Any]):
        def __call__(self) -> Any:
            ends.calls.append("called")
            return super().__call__()

    ends.protocol._stream_reader_wr = Reference(ends.reader)


def forgotten(ends: Ends) -> None:
    ends.protocol._stream_reader_wr = None


def freed(ends: Ends) -> None:
    ends.reader = ends.protocol._strong_reader = None


def own_feed_data(ends: Ends) -> None:
    ends.reader.feed_data = ends.calls.append


def feed_data_of_another(ends: Ends) -> None:
    ends.kept.append(other := asyncio.StreamReader())
    ends.reader.feed_data = other.feed_data
    ends.calls = other._buffer  # type: ignore[attr-defined]


def own_data_received(ends: Ends) -> None:
    ends.protocol.data_received = ends.calls.append


STATES: list[Callable[[Ends], None]] = [
    unchanged,
    waited_for,
    cancelled,
    done,
    future_in_python,
    future_of_a_subclass,
    ended,
    failed,
    holding,
    narrow,
    narrower,
    without_limit,
    limited_by_a_float,
    without_transport,
    viewed,
    another_buffer,
    incomplete,
    referred_to_by_a_proxy,
    referred_to_peculiarly,
    forgotten,
    freed,
    own_feed_data,
    feed_data_of_another,
    own_data_received,
]
CLASSES: dict[str, tuple[type[asyncio.StreamReader], type[asyncio.StreamReaderProtocol]]] = {
    "asyncio's": (asyncio.StreamReader, asyncio.StreamReaderProtocol),
    "reader": (Peculiar, asyncio.StreamReaderProtocol),
    "protocol": (asyncio.StreamReader, PeculiarProtocol),
}
C_FEEDS = {unchanged, waited_for, cancelled, done, holding, narrow, viewed, failed}
"""The states in which the first piece is left to C."""


def state_of(ends: Ends, transport: Any, problems: list[dict[str, Any]]) -> list[Any]:
    reader = ends.reader
    waiters = [(future.done(), future.cancelled()) for future in ends.kept if asyncio.isfuture(future)]
    return [
        reader and (bytes(reader._buffer), reader._paused, reader._eof, plain(reader.exception())),
        getattr(reader, "_waiter", "none") is None,
        waiters,
        [bytes(call) if isinstance(call, bytes | bytearray) else call for call in ends.calls],
        transport.is_closing(),
        [(plain(problem["message"]), plain(problem.get("exception"))) for problem in problems],
    ]


async def fed(state: Callable[[Ends], None], classes: str) -> list[Any]:
    problems = complaints()
    reader_class, protocol_class = CLASSES[classes]
    reader = reader_class(loop=asyncio.get_running_loop())
    ends = Ends(reader, protocol_class(reader))
    del reader
    seen = []
    async with connection(ends.protocol) as (transport, peer):
        state(ends)
        for piece in PIECES:
            with contextlib.suppress(BrokenPipeError):  # The first piece may have ended the connection.
                peer.send(piece)
            await turns(4)
            seen.append(state_of(ends, transport, problems))
    ends.kept.clear()
    return seen


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("state", STATES)
def test_data_change_the_same_in_each_state(state: Callable[[Ends], None], classes: str, debug: bool) -> None:
    same(lambda: fed(state, classes), debug=debug)


@contextlib.contextmanager
def counting(calls: list[str]) -> Iterator[None]:
    """The names of the Python functions that are called meanwhile."""
    sys.setprofile(lambda frame, event, arg: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("state", STATES)
def test_the_plain_case_calls_no_python_code_but_in_debug_mode(state: Callable[[Ends], None]) -> None:
    async def scenario() -> list[str]:
        complaints()
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        ends = Ends(reader, asyncio.StreamReaderProtocol(reader))
        del reader
        calls: list[str] = []
        async with connection(ends.protocol) as (transport, peer):
            state(ends)
            peer.send(PIECES[0])
            ready = transport._read_ready
            with counting(calls):
                ready()
        ends.kept.clear()
        return calls

    for debug, by_c in (False, C_FEEDS), (True, set()):
        called = {"data_received", "feed_data"} & set(on("pyepoll", scenario, debug=debug))
        assert bool(called) == (state not in {*by_c, own_data_received})


def one_is_seen(change: Callable[[list[Any]], Any]) -> None:
    """A part of asyncio's classes that a program has replaced is used, as long as it is there."""

    async def scenario() -> list[bytes]:
        seen: list[bytes] = []
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        async with connection(asyncio.StreamReaderProtocol(reader)) as (_, peer):
            with change(seen):
                peer.send(b"seen")
                await soon(lambda: bool(seen))
            await turns()
            reader._buffer.clear()  # type: ignore[attr-defined]
            peer.send(b"fed")
            return [*seen, await reader.readexactly(3)]

    assert same(scenario) == [b"seen", b"fed"]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(asyncio.StreamReader, "feed_data"), (asyncio.StreamReaderProtocol, "data_received")],
)
def test_a_method_that_was_replaced_is_called(owner: type, name: str) -> None:
    one_is_seen(lambda seen: mock.patch.object(owner, name, lambda self, data: seen.append(data)))


def test_code_that_was_replaced_runs() -> None:
    def code(self: Any, data: bytes) -> None:
        self.seen.append(data)

    @contextlib.contextmanager
    def both(seen: list[Any]) -> Iterator[None]:
        method: Any = asyncio.StreamReader.feed_data
        before, method.__code__ = method.__code__, code.__code__
        with mock.patch.object(asyncio.StreamReader, "seen", seen, create=True):
            yield
        method.__code__ = before

    one_is_seen(both)


def test_other_parts_of_the_classes_may_be_replaced() -> None:
    def wakes(seen: list[Any]) -> Any:
        wake: Any = asyncio.StreamReader._wakeup_waiter  # type: ignore[attr-defined]

        def wakeup(self: Any) -> None:
            seen.append(bytes(self._buffer))
            wake(self)

        return mock.patch.object(asyncio.StreamReader, "_wakeup_waiter", wakeup)

    def leads_elsewhere(seen: list[Any]) -> Any:
        other = mock.Mock(feed_data=seen.append)
        return mock.patch.object(asyncio.StreamReaderProtocol, "_stream_reader", other)

    one_is_seen(wakes)
    one_is_seen(leads_elsewhere)


@pytest.mark.parametrize(
    "change",
    [
        "s.StreamReader = functools.partial(asyncio.StreamReader, limit=1000)",
        "s.StreamReaderProtocol = functools.partial(asyncio.StreamReaderProtocol)",
        "del s.StreamReaderProtocol, s.StreamReader",
        "del s.StreamReader._wakeup_waiter",
        "s.StreamReader = type('StreamReader', (s.StreamReader,), {'_wakeup_waiter': woken})",
        "s.StreamReader._wakeup_waiter = woken",
        "s.StreamReader.feed_data = feed",
        "asyncio.Future = asyncio.futures.Future = asyncio.futures._PyFuture",
        "sys.modules['asyncio.streams'] = types.ModuleType('streams')",
    ],
)
def test_classes_may_be_replaced_before_the_import(change: str) -> None:
    """A class that was there first is used as asyncio uses it."""
    said = run(
        f"""
        import asyncio, functools, socket, sys, types
        s = asyncio.streams
        make, protocol = s.StreamReader, s.StreamReaderProtocol
        wakeup, feed_data = make._wakeup_waiter, make.feed_data

        def woken(self):
            print("woken", bytes(self._buffer))
            wakeup(self)

        def feed(self, data):
            print("fed", data)
            feed_data(self, data)

        async def main():
            loop = asyncio.get_running_loop()
            near, far = socket.socketpair()
            reader = getattr(s, "StreamReader", make)(loop=loop)
            transport, _ = await loop.create_connection(lambda: protocol(reader), sock=near)
            far.send(b"data")
            waiting = hasattr(make, "_wakeup_waiter")
            print(await reader.readexactly(4) if waiting else "no")
            transport.close()
            far.close()

        {change}
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(main())
        print("|")
        from pyepoll import aio
        asyncio.Runner(loop_factory=aio.new_event_loop).run(main())
        """
    )
    stock, _, ours = said.partition("|\n")
    assert ours == stock
    assert ours


def test_an_interrupt_in_an_attribute_is_not_lost() -> None:
    """As one in asyncio's code."""

    def limit(self: Any) -> int:
        if not said:
            said.append("interrupted")
            raise KeyboardInterrupt
        return 100

    said: list[str] = []

    async def scenario() -> None:
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        async with connection(asyncio.StreamReaderProtocol(reader)) as (transport, peer):
            del reader._limit  # type: ignore[attr-defined]
            peer.send(b"data")
            with mock.patch.object(asyncio.StreamReader, "_limit", property(limit), create=True):
                with pytest.raises(KeyboardInterrupt):
                    transport._read_ready()

    for name in FACTORIES:
        said.clear()
        on(name, scenario)
        assert said == ["interrupted"]


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("limit", [1, 100, 2**16])
def test_a_reader_gets_all_that_was_sent(name: str, limit: int) -> None:
    """Whether it waits, is full, or reads less than there is."""
    data = os.urandom(300_000)
    choice = random.Random(limit)

    async def scenario() -> None:
        reader = asyncio.StreamReader(limit=limit, loop=asyncio.get_running_loop())
        async with connection(asyncio.StreamReaderProtocol(reader), tcp=True) as (_, peer):
            sending = asyncio.create_task(send(peer))
            got = bytearray()
            while len(got) < len(data):
                size = min(choice.choice([1, 50, 5000, 50_000]), len(data) - len(got))
                got += await reader.readexactly(size) if choice.random() < 0.5 else await reader.read(size)
                if choice.random() < 0.1:
                    await asyncio.sleep(0)
            await sending
            assert got == data

    async def send(peer: Any) -> None:
        start = 0
        while start < len(data):
            size = choice.choice([1, 10, 1000, 100_000])
            await asyncio.get_running_loop().sock_sendall(peer, data[start : start + size])
            start += size
            await asyncio.sleep(0)

    on(name, scenario)


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async def scenario() -> bytes:
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        async with connection(asyncio.StreamReaderProtocol(reader)) as (_, peer):
            reading = asyncio.create_task(reader.readexactly(6))
            await turns()
            peer.send(b"abc")
            reading.cancel()
            await turns()
            peer.send(b"def")
            return await reader.readexactly(6)

    assert same(scenario) == b"abcdef"


def test_a_transport_keeps_no_reader_alive() -> None:
    async def scenario() -> bool:
        reader = asyncio.StreamReader(loop=asyncio.get_running_loop())
        protocol: Any = asyncio.StreamReaderProtocol(reader)
        async with connection(protocol) as (_, peer):
            peer.send(b"data")
            await reader.readexactly(4)
            seen = weakref.ref(reader)
            reader = protocol._strong_reader = None  # type: ignore[assignment]
            await turns(2)
            peer.send(b"more")
            await turns(2)
            return seen() is None

    assert same(scenario)


def test_an_echo_server_of_streams_answers_each_request() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def ask(address: Any, number: int) -> int:
        reader, writer = await asyncio.open_connection(*address)
        for request in range(30):
            message = b"%d:%d\n" % (number, request)
            writer.write(message)
            assert await reader.readline() == message
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return number

    async def scenario() -> list[int]:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            return list(await asyncio.gather(*(ask(address, number) for number in range(50))))

    assert same(scenario) == list(range(50))
