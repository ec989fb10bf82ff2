"""Data is sent as it was at the time of write() and writelines(), whatever happens to the buffer later."""

import array
import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.faults import Side, closing, sides
from support.loops import Plain, receive, receive_all, small_buffers, soon

MUCH = bytes(range(256)) * 4000
HEADERS = 6_000
"""More than a small socket buffer has room for."""
"""More than a socket takes at once."""

Send = Callable[[Any, Any], None]


async def connect(seen: Plain | None = None) -> tuple[Any, socket.socket]:
    """A transport whose socket takes little at a time, and its peer."""
    near, peer = socket.socketpair()
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: seen or Plain(), sock=small_buffers(near))
    return transport, peer


def by_write(transport: Any, data: Any) -> None:
    transport.write(data)


def by_writelines(transport: Any, data: Any) -> None:
    transport.writelines([data])


def by_writelines_of_many(transport: Any, data: Any) -> None:
    view = memoryview(data)
    transport.writelines([view[:3], b"", view[3:3], view[3:]])


def sent_by(side: Side, act: Callable[[Any], object]) -> bytes:
    """The data that the peer gets of a transport with `act` done to it and closed."""

    async def scenario() -> bytes:
        transport, peer = await connect()
        with closing(peer):
            act(transport)
            transport.close()
            return await receive_all(peer)

    return side.run(scenario)


def test_a_buffer_changed_in_the_same_turn_is_sent_as_it_was() -> None:
    """Nothing waits to be sent: where writes are gathered, data must have been copied."""

    def act(transport: Any) -> None:
        data = bytearray(b"first")
        for send in by_write, by_writelines:
            send(transport, data)
            data[:] = b"wrong"
            send(transport, memoryview(data))
            data[:] = b"first"
        data.clear()

    assert sent_by(Side("pyepoll", 20), act) == b"firstwrong" * 2


def reuse_header(transport: Any, send: Send) -> None:
    header = bytearray(8)
    for number in range(HEADERS):
        struct.pack_into("!Q", header, 0, number)
        send(transport, header)


@sides("write: bytearray reused")
def test_a_header_reused_for_each_write_is_sent_as_it_was(side: Side) -> None:
    received = sent_by(side, lambda transport: reuse_header(transport, by_write))
    assert received == b"".join(struct.pack("!Q", number) for number in range(HEADERS))


@sides("writelines: buffers reused")
@pytest.mark.parametrize("send", [by_writelines, by_writelines_of_many])
def test_a_header_reused_for_each_writelines_is_sent_as_it_was(side: Side, send: Send) -> None:
    received = sent_by(side, lambda transport: reuse_header(transport, send))
    assert received == b"".join(struct.pack("!Q", number) for number in range(HEADERS))


@sides("write: bytearray reused")
@pytest.mark.parametrize("view", [False, True], ids=["bytearray", "memoryview"])
def test_the_rest_of_a_changed_buffer_is_sent_as_it_was(side: Side, view: bool) -> None:
    """A part was sent at once."""
    data = bytearray(MUCH)

    def act(transport: Any) -> None:
        transport.write(memoryview(data) if view else data)
        data[:] = bytes(len(data))

    assert sent_by(side, act) == MUCH


@sides("write: bytearray cleared")
def test_a_buffer_that_is_cleared_is_not_lost(side: Side) -> None:
    """All of it has to wait, behind other data; nothing stops a program from changing its size."""

    def act(transport: Any) -> None:
        transport.write(MUCH)
        data = bytearray(b"the end")
        transport.write(data)
        data.clear()

    assert sent_by(side, act) == MUCH + b"the end"


@sides("write: bytearray cleared")
@pytest.mark.parametrize(
    "change", [bytearray.clear, lambda data: data.extend(b"more")], ids=["cleared", "extended"]
)
def test_a_buffer_is_not_exported(side: Side, change: Callable[[bytearray], None]) -> None:
    """A part was sent at once; the program may resize its buffer."""
    data = bytearray(MUCH)

    def act(transport: Any) -> None:
        transport.write(data)
        change(data)  # BufferError if the transport has kept a view of it.

    assert sent_by(side, act) == MUCH


def wide(data: bytes) -> list[memoryview]:
    """Views of the data with items of several bytes, or with several dimensions."""
    return [
        memoryview(array.array("Q", data)),
        memoryview(data).cast("H"),
        memoryview(data).cast("B", [len(data) // 8, 2, 4]),
    ]


@sides("write: items larger than a byte")
@pytest.mark.parametrize("number", range(3), ids=["array of Q", "cast to H", "3 dimensions"])
def test_a_view_of_larger_items_is_sent_once(side: Side, number: int) -> None:
    assert sent_by(side, lambda transport: transport.write(wide(MUCH)[number])) == MUCH


@sides("write: items larger than a byte")
@pytest.mark.parametrize("send", [by_write, by_writelines])
def test_a_view_of_larger_items_waits_its_turn(side: Side, send: Send) -> None:
    def act(transport: Any) -> None:
        transport.write(MUCH)
        for view in wide(MUCH)[:2]:
            send(transport, view)

    assert sent_by(side, act) == MUCH * 3


@sides("write: items larger than a byte")
def test_the_size_of_the_write_buffer_is_in_bytes(side: Side) -> None:
    async def scenario() -> tuple[int, int]:
        transport, peer = await connect()
        with closing(peer):
            transport.write(MUCH)
            before = transport.get_write_buffer_size()
            transport.write(memoryview(bytes(8000)).cast("Q"))
            after = transport.get_write_buffer_size()
            transport.abort()
            await asyncio.sleep(0)
            return before, after

    before, after = side.run(scenario)
    assert after - before == 8000


@sides("writelines: never pauses")
def test_writelines_pauses_the_protocol(side: Side) -> None:
    """CVE-2024-12254: without it, memory grows without bound."""
    seen = Plain()

    async def scenario() -> None:
        transport, peer = await connect(seen)
        with closing(peer):
            transport.writelines([MUCH])
            assert "pause" in seen.seen
            await receive(peer, len(MUCH))
            await soon(lambda: "resume" in seen.seen)
            transport.close()
            await soon(seen.lost)

    side.run(scenario)


@sides("writelines: spins on an empty item")
@pytest.mark.parametrize("items", [[b""], [MUCH, b""], [MUCH, bytearray(), memoryview(b"")]])
def test_an_empty_last_item_leaves_nothing_to_send(side: Side, items: list[Any]) -> None:
    async def scenario() -> bytes:
        transport, peer = await connect()
        with closing(peer):
            transport.writelines(items)
            received = await receive(peer, sum(map(len, items)))
            await soon(lambda: transport.get_write_buffer_size() == 0)
            assert "write=<idle" in repr(transport) or side.name == "uvloop"
            transport.close()
            return received + await receive_all(peer)

    assert side.run(scenario) == b"".join(map(bytes, items))


@sides("writelines: raises after close")
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "when it is lost"])
def test_writelines_after_the_end_is_ignored(side: Side, end: str, later: bool) -> None:
    """As write() is."""
    seen = Plain()

    async def scenario() -> None:
        transport, peer = await connect(seen)
        with closing(peer):
            getattr(transport, end)()
            if later:
                await soon(seen.lost)
            transport.write(b"data")
            transport.writelines([b"da", b"ta"])
            await soon(seen.lost)
            assert peer.recv(100) == b""
            assert seen.seen == ["made", ("lost", None)]

    side.run(scenario)


def cost_of(side: Side, writes: int) -> float:
    """Seconds of CPU for so many small writes behind data that waits."""

    async def scenario() -> float:
        transport, peer = await connect()
        with closing(peer):
            transport.write(MUCH)
            start = time.thread_time()
            for _ in range(writes):
                transport.write(b"0123456789abcdef")
            cost = time.thread_time() - start
            transport.abort()
            await asyncio.sleep(0)
            return cost

    return min(side.run(scenario) for _ in range(3 if side.name == "pyepoll" else 1))


@sides("write: quadratic")
def test_the_cost_of_a_write_does_not_grow_with_the_number_kept(side: Side) -> None:
    """8 times the writes take about 8 times as long; where each one looks at all others, it is 64 times."""
    # Another program may take the CPU's caches for a while.
    for _ in range(3 if side.name == "pyepoll" else 1):
        if cost_of(side, 8000) < 24 * cost_of(side, 1000):
            return
    pytest.fail("quadratic")
