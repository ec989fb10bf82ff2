"""Much data: from the second event on, the transport receives straight into an object of adaptive size."""

import asyncio
import ctypes
import socket
import tracemalloc
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
from support.loops import Buffered, Plain, connection, on, same, soon, turns

LIMIT = 256 * 1024
"""What an event reads at most."""


def large_buffers(sock: socket.socket) -> socket.socket:
    """More than the limit fits in."""
    for name in socket.SO_SNDBUF, socket.SO_RCVBUF:
        sock.setsockopt(socket.SOL_SOCKET, name, 1 << 20)
    return sock


class Much(Plain):
    """Records the size of each piece, and 0 in the turn after it; `then` is called at the first large one."""

    def __init__(self, then: Callable[[Any], object] = lambda transport: None) -> None:
        super().__init__()
        self.then = then

    def data_received(self, data: bytes) -> None:
        self.seen.append(len(data))
        asyncio.get_running_loop().call_soon(self.seen.append, 0)
        if len(data) >= LIMIT:
            then, self.then = self.then, lambda transport: None
            then(self.transport)


async def receive_much(seen: Much, size: int, end: bool = False, count: int = 10) -> list[Any]:
    """Send so many bytes at once, and return the records, after a piece that is large enough."""
    async with connection(seen, sock=large_buffers) as (transport, peer):
        large_buffers(peer)
        peer.send(bytes(40_000))
        await soon(lambda: 40_000 in seen.seen and seen.seen[-1] == 0)
        transport.pause_reading()
        assert peer.send(bytes(size)) == size
        if end:
            peer.shutdown(socket.SHUT_WR)
        transport.resume_reading()
        await turns(count)
        if not transport.is_closing():
            transport.set_protocol(rest := Plain())
            transport.resume_reading()
            await turns(count)
            seen.seen += [len(what) for what in rest.seen if isinstance(what, bytes)]
        return seen.seen[3:]


@pytest.mark.parametrize("size", [40_000, 150_000, LIMIT, LIMIT + 1, 700_000])
def test_an_event_is_one_call(size: int) -> None:
    """Then the other connections have their turn."""

    async def scenario() -> list[Any]:
        return await receive_much(Much(), size)

    whole, rest = divmod(size, LIMIT)
    assert same(scenario) == [LIMIT, 0] * whole + [rest, 0] * (rest > 0)


@pytest.mark.parametrize(
    ("then", "after"),
    [
        (lambda transport: transport.pause_reading(), [0, 300_000 - LIMIT]),
        (lambda transport: transport.set_protocol(Plain()), [0]),
        (lambda transport: transport.set_protocol(Buffered(size=LIMIT)), [0]),
        (lambda transport: transport.close(), [0, ("lost", None)]),
        (lambda transport: transport.abort(), [0, ("lost", None)]),
        (lambda transport: transport.get_extra_info("socket")._sock.close(), [0]),
    ],
    ids=["pause", "protocol", "buffered", "close", "abort", "socket closed"],
)
def test_a_change_in_a_callback_holds_for_the_rest(then: Callable[[Any], object], after: list[Any]) -> None:
    async def scenario() -> list[Any]:
        return await receive_much(Much(then), 300_000)

    assert on("pyepoll", scenario) == [LIMIT, *after]


def test_the_end_comes_a_turn_later() -> None:
    """After the callbacks that the protocol has scheduled with the data."""

    async def scenario() -> list[Any]:
        return await receive_much(Much(), LIMIT, end=True)

    assert same(scenario) == [LIMIT, 0, "eof", ("lost", None)]


def test_max_size_limits_what_an_event_reads() -> None:
    async def scenario() -> list[Any]:
        seen = Much()
        async with connection(seen, sock=large_buffers) as (transport, peer):
            large_buffers(peer)
            transport.max_size = 100_000
            peer.send(bytes(40_000))
            await soon(lambda: 40_000 in seen.seen and seen.seen[-1] == 0)
            assert peer.send(bytes(300_000)) == 300_000
            await soon(lambda: sum(what for what in seen.seen if isinstance(what, int)) == 340_000)
            await turns()
            return seen.seen[3:]

    assert same(scenario) == [100_000, 0] * 3


def test_small_and_large_pieces_in_turn_are_whole() -> None:
    """Few and many small ones after a large one."""
    pieces = [bytes([i % 251]) * (50_000 if i % 12 in (0, 1, 3) else i + 1) for i in range(60)]

    async def scenario() -> bytes:
        async with connection(seen := Plain(), sock=large_buffers) as (_, peer):
            large_buffers(peer)
            for end, piece in zip(accumulate(map(len, pieces)), pieces, strict=True):
                peer.send(piece)
                await soon(lambda: seen.has(end))  # noqa: B023
            return bytes(seen.seen[1])

    assert on("pyepoll", scenario) == b"".join(pieces)


async def receive_pieces(*pieces: bytes) -> list[bytes]:
    """Each piece as it is received, after one that is large."""
    kept: list[bytes] = []

    class Keeps(Plain):
        def data_received(self, data: bytes) -> None:
            kept.append(data)

    async with connection(Keeps(), sock=large_buffers) as (_, peer):
        large_buffers(peer)
        for count, piece in enumerate((bytes(40_000), *pieces), 1):
            assert peer.send(piece) == len(piece)
            await soon(lambda: len(kept) == count)  # noqa: B023
    del kept[0]
    return kept


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT // 2, LIMIT // 8, LIMIT // 8 - 1, 1])
def test_an_object_ends_where_its_data_end(size: int) -> None:
    """C code may take a NUL byte for granted there."""
    text_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))

    async def scenario() -> None:
        pieces = [
            letter * count for letter, count in ((b"a", LIMIT), (b"b", size), (b"c", LIMIT), (b"d", size))
        ]
        received = await receive_pieces(*pieces)
        assert received == pieces
        assert [text_of(data) for data in received] == pieces
        assert [hash(data) for data in received] == [hash(data) for data in pieces]

    on("pyepoll", scenario)


@pytest.mark.parametrize("size", [33_000, 64_000, 130_000, 250_000])
def test_objects_that_a_program_keeps_take_at_most_twice_their_data(size: int) -> None:
    """After many reads of that size."""
    first, count = 130, 40

    async def scenario() -> int:
        tracemalloc.start()
        try:
            received = await receive_pieces(*[bytes(size)] * (first + count))
            before = tracemalloc.get_traced_memory()[0]
            del received[first:]
            return before - tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    freed = on("pyepoll", scenario)
    assert count * size <= freed <= 2 * count * (size + 50)
