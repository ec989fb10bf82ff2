"""Much data: from the second event on, the transport receives into two objects of 128 KiB for each event."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Buffered, Plain, connection, on, same, soon, turns

OBJECT = 128 * 1024
"""The size of one."""


def large_buffers(sock: socket.socket) -> socket.socket:
    """Several objects fit in."""
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
        if len(data) >= OBJECT:
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


def test_an_event_reads_two_objects() -> None:
    """Then the other connections have their turn, as after the 256 KiB of asyncio."""

    async def scenario() -> list[Any]:
        return await receive_much(Much(), 300_000)

    assert on("pyepoll", scenario) == [OBJECT, OBJECT, 0, 0, 300_000 - 2 * OBJECT, 0]


@pytest.mark.parametrize(
    ("then", "after"),
    [
        (lambda transport: transport.pause_reading(), [0, 150_000 - OBJECT]),
        (lambda transport: transport.set_protocol(Plain()), [0]),
        (lambda transport: transport.set_protocol(Buffered(size=OBJECT)), [0]),
        (lambda transport: transport.close(), [0, ("lost", None)]),
        (lambda transport: transport.abort(), [0, ("lost", None)]),
        (lambda transport: transport.get_extra_info("socket")._sock.close(), [0]),
    ],
    ids=["pause", "protocol", "buffered", "close", "abort", "socket closed"],
)
def test_a_change_in_the_first_callback_holds_for_the_second(
    then: Callable[[Any], object], after: list[Any]
) -> None:
    async def scenario() -> list[Any]:
        return await receive_much(Much(then), 150_000)

    assert on("pyepoll", scenario) == [OBJECT, *after]


def test_the_end_comes_a_turn_later() -> None:
    """After the callbacks that the protocol has scheduled with the data."""

    async def scenario() -> list[Any]:
        return await receive_much(Much(), OBJECT, end=True)

    assert same(scenario) == [OBJECT, 0, "eof", ("lost", None)]


def test_max_size_limits_what_an_event_reads() -> None:
    async def scenario() -> list[Any]:
        seen = Much()
        async with connection(seen, sock=large_buffers) as (transport, peer):
            large_buffers(peer)
            transport.max_size = OBJECT + 1000
            peer.send(bytes(40_000))
            await soon(lambda: 40_000 in seen.seen and seen.seen[-1] == 0)
            assert peer.send(bytes(300_000)) == 300_000
            await soon(lambda: sum(what for what in seen.seen if isinstance(what, int)) == 340_000)
            await turns()
            return seen.seen[3:7]

    assert on("pyepoll", scenario) == [OBJECT, 1000, 0, 0]
