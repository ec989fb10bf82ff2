"""The data that a transport's write() takes, sends, keeps and refuses: as asyncio's."""

import array
import asyncio
import ctypes
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import (
    Plain,
    connection,
    error_text,
    logged,
    on,
    plain,
    receive,
    receive_all,
    same,
    small_buffers,
    soon,
    turns,
)
from support.threads import lets_go_of_the_gil

from pyepoll import aio

BIG = bytes(range(256)) * 4 * 1024 * 3
"""Far more than sockets take at once, and any piece of it in the wrong place is seen."""


class Bytes(bytes):
    """Not bytes itself."""


DATA: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"data",
    "one byte": lambda: b"d",
    "bytearray": lambda: bytearray(b"data"),
    "memoryview": lambda: memoryview(b"data"),
    "memoryview of a part": lambda: memoryview(b"<data>")[1:-1],
    "a subclass": lambda: Bytes(b"data"),
    "no bytes": lambda: b"",
    "no bytearray": lambda: bytearray(),
    "an empty memoryview": lambda: memoryview(b""),
    "an empty subclass": lambda: Bytes(),
    "str": lambda: "data",
    "an empty str": lambda: "",
    "None": lambda: None,
    "a number": lambda: 7,
    "an array": lambda: array.array("B", b"data"),
    "a list": lambda: [1],
}


def outcome(call: Callable[[], object]) -> object:
    """The result or exception of a call, as text."""
    try:
        return call()
    except Exception as error:
        return error_text(error)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("what", DATA)
def test_write_takes_bytes_like_objects_only(what: str, tcp: bool) -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=tcp) as (transport, peer):
            said = outcome(lambda: transport.write(DATA[what]()))
            transport.write_eof()
            return [said, await receive_all(peer), seen.seen]

    said, data, _ = same(scenario)
    taken = isinstance(DATA[what](), bytes | bytearray | memoryview)
    assert (said is None) == taken
    assert data == (bytes(DATA[what]()) if taken else b"")


@pytest.mark.parametrize(
    ("args", "names"),
    [((), {}), ((b"1", b"2"), {}), ((), {"data": b"1"}), ((b"1",), {"data": b"2"}), ((), {"other": b"1"})],
)
def test_write_accepts_and_refuses_the_same_arguments(
    args: tuple[bytes, ...], names: dict[str, bytes]
) -> None:
    """By name as well; a refused argument raises the same exception."""

    async def scenario() -> tuple[str, bytes]:
        async with connection(Plain()) as (transport, peer):
            try:
                transport.write(*args, **names)
                said = "fine"
            except Exception as error:
                said = type(error).__name__
            transport.write_eof()
            return said, await receive_all(peer)

    assert same(scenario) == (("fine", b"1") if names == {"data": b"1"} else ("TypeError", b""))


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, Bytes])
def test_write_keeps_data_beyond_the_sockets_room(kind: Callable[[bytes], Any], tcp: bool) -> None:
    # With a small buffer TCP waits for acknowledgements, which takes a while.
    much = BIG * 4 if tcp else BIG

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=tcp, sock=None if tcp else small_buffers) as (
            transport,
            peer,
        ):
            transport.write(kind(much))
            kept = transport.get_write_buffer_size()
            assert 0 < kept < len(much)
            transport.write(b"the end")
            assert transport.get_write_buffer_size() == kept + 7
            data = await receive(peer, len(much) + 7)
            assert data == much + b"the end"
            await soon(lambda: "resume" in seen.seen)
            assert transport.get_write_buffer_size() == 0
            transport.write(b"more")
            assert transport.get_write_buffer_size() == 0
            return [await receive(peer, 4), seen.seen]

    assert same(scenario) == [b"more", ["made", "pause", "resume", ("lost", None)]]


@pytest.mark.parametrize("size", [1, 999, 65536, 65537, 200_000])
def test_many_writes_arrive_once_and_in_order(size: int) -> None:
    """Some at once, some when there is room: none is lost, doubled or out of turn."""
    count = max(3_000_000 // max(size, 500), 20)

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            reader = asyncio.create_task(receive(peer, size * count))
            sent = []
            for number in range(count):
                sent.append(bytes([number % 251]) * size)
                transport.write(sent[-1])
                if number % 64 == 63:
                    await turns(1)
            assert await reader == b"".join(sent)
            transport.write_eof()
            return [await receive_all(peer), seen.seen.count("pause") - seen.seen.count("resume")]

    assert same(scenario) == [b"", 0]


@pytest.mark.parametrize("limits", [{}, {"high": 0}, {"high": 1000}, {"low": 10}, {"high": 100, "low": 99}])
def test_flow_control_pauses_and_resumes_the_protocol(limits: dict[str, int]) -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            transport.set_write_buffer_limits(**limits)
            low, high = transport.get_write_buffer_limits()
            while not transport.get_write_buffer_size():
                transport.write(b"." * 500)
            while transport.get_write_buffer_size() <= high:
                assert "pause" not in seen.seen or not high
                transport.write(b"." * 100)
            transport.write(b"." * 100)
            before = list(seen.seen)
            while transport.get_write_buffer_size() > low:
                assert "resume" not in seen.seen
                await receive(peer, 50)
                await turns()
            await soon(lambda: "resume" in seen.seen)
            return [(low, high), before, seen.seen]

    assert same(scenario)[1:] == [["made", "pause"], ["made", "pause", "resume", ("lost", None)]]


def test_drain_waits_for_room_and_raises_on_loss() -> None:
    """A StreamWriter's drain() waits for room, and raises when the connection is lost meanwhile."""

    async def scenario() -> list[Any]:
        near, peer = socket.socketpair()
        peer.setblocking(False)
        with peer:
            _, writer = await asyncio.open_connection(sock=small_buffers(near))
            await writer.drain()
            writer.write(BIG)
            waits = asyncio.create_task(writer.drain())
            await turns()
            assert not waits.done()
            assert await receive(peer, len(BIG)) == BIG
            await waits
            writer.write(BIG)
            waits = asyncio.create_task(writer.drain())
            await turns()
            peer.close()
            (said,) = await asyncio.gather(waits, return_exceptions=True)
            writer.close()
            (closed,) = await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            return [error_text(said), error_text(closed)]

    drained, closed = same(scenario)
    assert str(drained).startswith("ConnectionResetError")
    assert closed in (None, drained)


@pytest.mark.parametrize(
    "lines", [[], [b""], [b"1"], [b"1", bytearray(b"2"), memoryview(b"3")], [b"12", b"", b"3"]]
)
def test_writelines_sends_lines_in_order(lines: list[Any]) -> None:
    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.writelines(iter(lines) if sys.version_info < (3, 12) else lines)
            # Later versions have a fault of their own there, which a second line covers up.
            transport.writelines([b"4"])
            transport.write(b"5")
            return await receive(peer, len(b"".join(lines)) + 2)

    assert same(scenario) == b"".join(lines) + b"45"


def test_writelines_beyond_the_sockets_room_keeps_order() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            transport.writelines([BIG[:100_000]] * 20)
            assert transport.get_write_buffer_size() > 0
            transport.write(b"write")
            transport.writelines([b"and", b"lines"])
            assert await receive(peer, 2_000_000 + 13) == BIG[:100_000] * 20 + b"writeandlines"
            await soon(lambda: not transport.get_write_buffer_size())
            return seen.seen

    same(scenario)


@pytest.mark.parametrize("kept", [False, True], ids=["at once", "with data kept"])
def test_write_eof_sends_pending_data_first(kept: bool) -> None:
    """Data written before arrives, then the end; reading goes on."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            assert transport.can_write_eof()
            data = BIG if kept else b"all"
            transport.write(data)
            transport.write_eof()
            transport.write_eof()
            said = [
                outcome(lambda: transport.write(b"more")),
                outcome(lambda: transport.write(b"")),
                outcome(lambda: transport.write("")),
                # Before 3.12, asyncio names write() there.
                str(outcome(lambda: transport.writelines([b"more"]))).replace("writelines()", "write()"),
            ]
            assert await receive_all(peer) == data
            peer.send(b"still open")
            await soon(lambda: seen.has(10))
            return [said, transport.is_closing(), seen.seen]

    said, closing, seen = same(scenario)
    assert [str(words).partition(":")[0] for words in said] == [
        "RuntimeError",
        "RuntimeError",
        "TypeError",
        "RuntimeError",
    ]
    assert not closing
    assert seen[-2:] == [b"still open", ("lost", None)]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_write_after_the_end_is_ignored(how: str) -> None:
    """Nothing happens, but asyncio warns from the fifth time on."""

    async def scenario() -> list[Any]:
        with logged() as warnings:
            async with connection(seen := Plain()) as (transport, peer):
                transport.write(b"before")
                getattr(transport, how)()
                said = [outcome(lambda: transport.write(b"after")) for _ in range(8)]
                said.append(outcome(lambda: transport.write(None)))
                counted = transport._conn_lost
                await soon(seen.lost)
                said += [outcome(lambda: transport.write(b"long after")) for _ in range(2)]
                return [said, counted, await receive_all(peer), seen.seen, warnings]

    said, counted, data, seen, warnings = same(scenario)
    assert said[:8] == [None] * 8
    assert counted == 9
    assert data == b"before"
    assert seen == ["made", ("lost", None)]
    assert warnings == ["socket.send() raised exception."] * 6


def test_close_sends_the_data_kept() -> None:
    """All of it arrives, and data written after close() as well, as with asyncio's own."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            transport.write(BIG)
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert not transport.is_reading()
            transport.write(b"after")
            data = await receive_all(peer)
            assert data.startswith(BIG)
            await soon(seen.lost)
            if isinstance(transport, aio.SocketTransport):  # Before 3.14, asyncio's raises AttributeError.
                assert outcome(lambda: transport.write(b"long after")) is None
            return [data[len(BIG) :], seen.seen]

    data, seen = same(scenario)
    assert data == b"after"
    assert seen[-1] == ("lost", None)


def test_abort_drops_the_data_kept() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            transport.write(BIG)
            transport.abort()
            transport.abort()
            transport.close()
            assert transport.get_write_buffer_size() == 0
            await soon(seen.lost)
            data = await receive_all(peer)
            assert BIG.startswith(data)
            return [len(data) < len(BIG), seen.seen]

    assert same(scenario) == [True, ["made", "pause", ("lost", None)]]


@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"]
)
def test_write_in_a_callback_keeps_order(where: str) -> None:
    class Writes(Plain):
        def __getattribute__(self, name: str) -> Any:
            method = super().__getattribute__(name)
            if name != where:
                return method

            def call(*args: Any) -> Any:
                result = method(*args)
                if self.seen.count("written") < 3:
                    self.seen.append("written")
                    self.transport.write(b"!")
                return result

            return call

    async def scenario() -> list[Any]:
        async with connection(seen := Writes(True), sock=small_buffers) as (transport, peer):
            transport.set_write_buffer_limits(high=100)
            transport.write(BIG)
            peer.send(b"data")
            reader = asyncio.create_task(receive_all(peer))
            await soon(lambda: seen.has(4) and "resume" in seen.seen)
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: "eof" in seen.seen)
            transport.close()
            data = await reader
            return [data.count(b"!") - BIG.count(b"!"), len(data) - len(BIG), seen.seen]

    more, longer, seen = same(scenario)
    assert more == longer == seen.count("written") > 0


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_reused_bytearray_is_sent_as_it_was(kind: Callable[[bytearray], Any]) -> None:
    """Data sent at once is not sent again with other content."""

    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            data = bytearray(b"first")
            transport.write(kind(data))
            data[:] = b"other"
            transport.write(kind(data))
            return await receive(peer, 10)

    assert same(scenario) == b"firstother"


def test_a_large_send_releases_the_gil() -> None:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("there is no GIL to release")
    # With the GIL held: only write() can release it.
    recv = ctypes.PyDLL(None).recv
    room = ctypes.create_string_buffer(1 << 20)

    async def scenario(size: int) -> bool:
        async with connection(Plain()) as (transport, peer):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            data, fd = b"." * size, peer.fileno()

            def exchange() -> None:
                transport.write(data)
                assert not transport.get_write_buffer_size()
                left = size
                while left:
                    left -= recv(fd, room, 1 << 20, 0)

            return lets_go_of_the_gil(exchange)

    assert on("pyepoll", lambda: scenario(100_000))


def test_repr_shows_state_and_buffer_size() -> None:
    async def scenario() -> list[str]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            said = [repr(transport)]
            transport.pause_reading()
            said.append(repr(transport))
            transport.write(BIG)
            said.append(repr(transport).partition("bufsize")[0])
            transport.close()
            said.append(repr(transport).partition("bufsize")[0])
            await receive_all(peer)
            await soon(seen.lost)
            return [plain(words) for words in (*said, repr(transport))]

    said = same(scenario)
    assert said[0] == "<SocketTransport fd=N read=polling write=<idle, bufsize=0>>"
    assert said[2] == "<SocketTransport fd=N read=idle write=<polling, "
    assert said[4] == "<SocketTransport closed fd=N>"
