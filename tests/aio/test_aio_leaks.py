"""Connections leave no fd, block or reference behind, also when there is no memory for a call."""

import asyncio
import gc
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.effort import Effort
from support.leaks import leaks
from support.loops import Buffered, Keeps, Plain, connection, on, receive, reset, soon, turns

MUCH = bytes(400_000)


class Fails(Plain):
    def data_received(self, data: bytes) -> None:
        raise ZeroDivisionError


class NoBuffer(Buffered):
    def get_buffer(self, sizehint: int) -> Any:
        return b"read-only"


class Empty(Buffered):
    def get_buffer(self, sizehint: int) -> Any:
        return bytearray()


async def exchange(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    for number in range(3):
        transport.write(b"data")
        transport.write(data=b"name")
        transport.write(bytearray(b"data"))
        peer.send(b"data")
        await soon(lambda number=number: seen.has(4 * number + 4))  # type: ignore[misc]
    transport.set_protocol(type(seen)())
    transport.set_protocol(seen)


async def much(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    transport.write(MUCH)
    await receive(peer, len(MUCH))


async def half_close(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)
    await soon(seen.lost)


async def abort(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    transport.write(MUCH)
    transport.abort()
    # From the fifth on, asyncio logs a warning, and pytest keeps it.
    for _ in range(4):
        transport.write(b"late")


async def send_data(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    peer.send(b"data")
    await soon(seen.lost)


async def get_reset(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    reset(peer)
    await soon(seen.lost)


async def write_after_end(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    transport.pause_reading()
    peer.close()
    transport.write(b"data")
    await soon(seen.lost)


async def refused(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    for args in (), (1,), ("text",), (b"1", b"2"):
        try:
            transport.write(*args)
        except TypeError:
            continue
        raise AssertionError
    transport.write_eof()
    try:
        transport.write(b"data")
    except RuntimeError:
        pass


def streams() -> Any:
    """A protocol of exactly asyncio's class, with its reader."""
    reader = asyncio.StreamReader()
    protocol: Any = asyncio.StreamReaderProtocol(reader)
    protocol.reader = reader
    return protocol


async def read(protocol: Any, transport: Any, peer: socket.socket) -> None:
    for _ in range(3):
        peer.send(b"datadata")
        await protocol.reader.readexactly(4)
        await protocol.reader.read(4)


async def read_cancelled(protocol: Any, transport: Any, peer: socket.socket) -> None:
    reading = asyncio.create_task(protocol.reader.read(4))
    await turns()
    peer.send(b"data")
    reading.cancel()
    await turns()


async def feed_fails(protocol: Any, transport: Any, peer: socket.socket) -> None:
    protocol.reader._waiter = waiter = asyncio.get_running_loop().create_future()
    waiter.set_result(None)
    peer.send(b"data")
    await soon(lambda: transport.get_protocol() is None)


LIVES: dict[str, tuple[Callable[[], Any], bool, Callable[..., Coroutine[Any, Any, None]]]] = {
    "messages": (Plain, False, exchange),
    "messages into a buffer": (Buffered, False, exchange),
    "more than fits": (Plain, False, much),
    "the end": (Plain, False, half_close),
    "abort": (Plain, False, abort),
    "data_received fails": (Fails, False, send_data),
    "no buffer to write to": (NoBuffer, False, send_data),
    "an empty buffer": (Empty, False, send_data),
    "a reset": (Plain, True, get_reset),
    "a write after the peer has gone": (Plain, False, write_after_end),
    "writes that are refused": (Plain, False, refused),
    "streams": (streams, False, read),
    "a stream's reader that is cancelled": (streams, False, read_cancelled),
    "a stream's reader that fails": (streams, False, feed_fails),
}


@pytest.mark.parametrize("life", LIVES)
def test_connections_leak_nothing(life: str, effort: Effort) -> None:
    kind, tcp, live = LIVES[life]

    async def scenario() -> dict[str, int]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)

        async def once() -> None:
            async with connection(seen := kind(), tcp=tcp) as (transport, peer):
                await live(seen, transport, peer)

        # Many inside one task: the counts are taken from outside of it.
        async def many() -> None:
            for _ in range(effort(25, 100)):
                await once()

        grown: dict[str, int] = {}
        for _ in range(effort(4, 10)):
            await many()
            before = counts()
            await many()
            grown = {name: by for name, after in counts().items() if (by := after - before[name]) > 20}
            if not grown:
                break
        return grown

    assert on("pyepoll", scenario) == {}


def counts() -> dict[str, int]:
    from support.leaks import COUNTS

    gc.collect()
    return {name: count() for name, count in COUNTS.items()}


def test_a_thousand_connections_leak_nothing(effort: Effort) -> None:
    """At once, and then gone."""

    async def scenario() -> dict[str, int]:
        loop = asyncio.get_running_loop()
        size = effort(100, 400)

        async def once() -> None:
            server = await loop.create_server(lambda: Echo(), "127.0.0.1", 0, backlog=size)
            clients = [Plain() for _ in range(size)]
            for client in clients:
                await loop.create_connection(lambda client=client: client, *server.sockets[0].getsockname())  # type: ignore[misc]
            for client in clients:
                client.transport.write(b"data")
            await soon(lambda: all(client.has(4) for client in clients))
            for client in clients:
                # No connection is left to wait for its time on a port.
                sock = client.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.transport.abort()
            server.close()
            await server.wait_closed()
            await soon(lambda: all(client.lost() for client in clients) and not Echo.alive)

        await once()
        before = counts()
        for _ in range(effort(3, 10)):
            await once()
        return {name: by for name, after in counts().items() if (by := after - before[name]) > size}

    assert on("pyepoll", scenario) == {}


class Echo(asyncio.Protocol):
    alive = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        Echo.alive += 1

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del self.transport
        Echo.alive -= 1


def test_a_leak_is_detected() -> None:
    kept: list[object] = []
    found = leaks(lambda: kept.append(object()), 100)
    assert found.keys() >= {"blocks of memory"} or sys.getallocatedblocks() == 0


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="its own lists crash when they have no memory",
)
@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("call", ["write", "write too much", "read", "the end", "a reset"])
def test_failed_allocations_raise_and_leave_no_partial_data(call: str, kind: type[Keeps]) -> None:
    """Every allocation fails in turn: MemoryError is raised or reported, and data is complete or absent."""
    pytest.importorskip("_testcapi", reason="a CPython without its test modules")
    from support.no_memory import MOST_ALLOCATIONS, without_memory

    failed = 0

    async def once(start: int) -> bool:
        nonlocal failed
        loop = asyncio.get_running_loop()
        reported: list[Any] = []
        loop.set_exception_handler(lambda loop, context: reported.append(context.get("exception")))
        async with connection(seen := kind(), tcp=call == "a reset") as (transport, peer):
            if call == "write":
                done = without_memory(start, lambda: transport.write(b"data"))
                transport.write_eof() if not transport.is_closing() else None
                assert await receive(peer, 100) in ((b"data",) if done and not reported else (b"data", b""))
            elif call == "write too much":
                done = without_memory(start, lambda: transport.write(MUCH))
                transport.abort()
                assert MUCH.startswith(await receive(peer, 1_000_000))
            else:
                loop._remove_reader(transport._sock_fd)  # type: ignore[attr-defined]
                if call == "read":
                    peer.send(b"data")
                elif call == "the end":
                    peer.shutdown(socket.SHUT_WR)
                else:
                    reset(peer)
                done = without_memory(start, transport._read_ready)
                await turns()
                if call == "read" and done and not transport.is_closing():
                    assert seen.seen == ["made", b"data"]
            await turns()
            if transport.is_closing() and transport.get_protocol() is not None:
                # asyncio had no memory to say so itself.
                transport._call_connection_lost(None)
            lost = isinstance(seen.seen[-1], tuple) and "MemoryError" in str(seen.seen[-1])
            failed += not done or lost
            return done and not lost and all(not isinstance(error, MemoryError) for error in reported)

    async def scenario() -> None:
        gc.disable()
        try:
            in_a_row = 0
            for start in range(MOST_ALLOCATIONS):
                in_a_row = in_a_row + 1 if await once(start) else 0
                if in_a_row == 5:
                    return
        finally:
            gc.enable()
        raise AssertionError("it allocates without end")

    on("pyepoll", scenario)
    # With a handle and a context to reuse, some need no memory.
    assert failed > 0 or call in ("write", "write too much", "the end")
