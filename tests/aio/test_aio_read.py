"""The calls of a protocol for data that a transport reads: as asyncio's."""

import asyncio
import contextvars
import socket
import sys
from typing import Any

import pytest
from support.loops import (
    Buffered,
    Keeps,
    Plain,
    connection,
    error_text,
    on,
    receive,
    same,
    small_buffers,
    soon,
    turns,
)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("size", [1, 2, 1000, 65536, 262144, 262145, 3_000_000])
def test_data_arrives_as_separate_unchanging_bytes(size: int, tcp: bool) -> None:
    """Each piece is bytes of its own, and stays as it was when more has been read."""

    class Pieces(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[bytes] = []

        def data_received(self, data: bytes) -> None:
            assert type(data) is bytes
            assert 0 < len(data) <= 256 * 1024
            self.pieces.append(data)
            super().data_received(data)

    sent = (bytes(range(251)) * (size // 251 + 1))[:size]

    async def scenario() -> list[Any]:
        async with connection(seen := Pieces(), tcp=tcp) as (transport, peer):
            for data in sent, b"second", sent[::-1]:
                await asyncio.get_running_loop().sock_sendall(peer, data)
            await soon(lambda: seen.has(2 * size + 6))
            assert b"".join(seen.pieces) == seen.seen[-1] == sent + b"second" + sent[::-1]
            return [transport.is_reading(), seen.seen]

    same(scenario)


def test_each_event_reads_once() -> None:
    """At most 256 KiB, then others have their turn."""

    async def scenario() -> list[int]:
        sizes: list[int] = []

        class Sizes(Plain):
            def data_received(self, data: bytes) -> None:
                asyncio.get_running_loop().call_soon(sizes.append, 0)
                sizes.append(len(data))

        def much(sock: socket.socket) -> socket.socket:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            return sock

        async with connection(Sizes(), sock=much) as (transport, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            transport.pause_reading()
            sent = peer.send(bytes(300_000)) + peer.send(b"1")
            transport.resume_reading()
            await soon(lambda: sum(sizes) == sent)
            await turns()
            return sizes

    assert same(scenario) in ([262144, 0, 37857, 0], [262144, 0, 37856, 0, 1, 0])


def test_an_empty_read_is_ignored() -> None:
    """Another reader was faster."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            transport._read_ready()
            peer.send(b"gone")
            asyncio.get_running_loop().call_soon(transport.get_extra_info("socket")._sock.recv, 4)
            await turns()
            transport._read_ready()
            peer.send(b"data")
            await soon(lambda: seen.has(4))
            return seen.seen

    assert same(scenario) == ["made", b"data", ("lost", None)]


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("keep_open", [None, False, True])
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_the_end_of_the_stream_is_reported(kind: type[Keeps], keep_open: bool | None, tcp: bool) -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := kind(keep_open), tcp=tcp) as (transport, peer):
            peer.send(b"last")
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: "eof" in seen.seen)
            await turns()
            states = [transport.is_closing(), transport.is_reading()]
            if keep_open:
                transport.write(b"answer")
                states.append(await receive(peer, 6))
                transport.close()
            await soon(seen.lost)
            return [states, await receive(peer, 1), seen.seen]

    states, rest, seen = same(scenario)
    assert states == ([False, True, b"answer"] if keep_open else [True, False])
    assert rest == b""
    assert seen == ["made", b"last", "eof", ("lost", None)]


@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_pause_in_a_callback_stops_reading(kind: type[Keeps]) -> None:
    """No more comes until reading is resumed, and none is lost."""

    class Pauses(kind):  # type: ignore[misc, valid-type]
        def keep(self, data: bytes) -> None:
            super().keep(data)
            self.transport.pause_reading()
            self.transport.pause_reading()
            self.seen.append("paused")

    async def scenario() -> list[Any]:
        async with connection(seen := Pauses()) as (transport, peer):
            peer.send(b"1")
            await soon(lambda: "paused" in seen.seen)
            peer.send(b"2")
            peer.shutdown(socket.SHUT_WR)
            await turns(20)
            seen.seen.append(transport.is_reading())
            for _ in range(2):
                transport.resume_reading()
                transport.resume_reading()
                seen.seen.append(transport.is_reading())
                await turns(20)
            return [transport.is_closing(), seen.seen]

    closing, seen = same(scenario)
    assert closing
    assert seen == ["made", b"1", "paused", False, True, b"2", "paused", True, "eof", ("lost", None)]


def test_pause_and_resume_in_a_callback_keep_reading() -> None:
    class Both(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()
            self.transport.resume_reading()

    async def scenario() -> list[Any]:
        async with connection(seen := Both()) as (_, peer):
            for number in range(20):
                peer.send(bytes([number]))
                await turns(number % 3)
            await soon(lambda: seen.has(20))
            return seen.seen

    assert same(scenario) == ["made", bytes(range(20)), ("lost", None)]


def test_a_transport_can_be_paused_when_made() -> None:
    class Pauses(Plain):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async def scenario() -> list[Any]:
        async with connection(seen := Pauses()) as (transport, peer):
            peer.send(b"data")
            await turns(20)
            before = list(seen.seen)
            transport.resume_reading()
            await soon(lambda: seen.has(4))
            return [before, seen.seen]

    # asyncio's transport of the first releases of 3.11 reads nevertheless.
    assert on("pyepoll", scenario) == [["made"], ["made", b"data", ("lost", None)]]
    if sys.version_info >= (3, 11, 7):
        same(scenario)


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_close_in_a_callback_ends_reading(kind: type[Keeps], how: str) -> None:
    class Closes(kind):  # type: ignore[misc, valid-type]
        def keep(self, data: bytes) -> None:
            super().keep(data)
            self.transport.write(b"bye")
            getattr(self.transport, how)()
            self.transport.write(b"too late")

    async def scenario() -> list[Any]:
        async with connection(seen := Closes()) as (_, peer):
            peer.send(b"data")
            await soon(seen.lost)
            return [await receive(peer, 20), seen.seen]

    assert same(scenario) == [b"bye", ["made", b"data", ("lost", None)]]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_data_ready_at_close_is_not_passed_on(how: str) -> None:
    """The callback that is about to run is not run: data is not passed on after close()."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            loop = asyncio.get_running_loop()
            peer.send(b"data")
            # Between the events and their callbacks.
            real = loop._process_events  # type: ignore[attr-defined]

            def process(events: Any) -> None:
                real(events)
                if any(key.fd == transport._sock_fd for key, _ in events):
                    getattr(transport, how)()

            loop._process_events = process  # type: ignore[attr-defined]
            await soon(seen.lost)
            return seen.seen

    assert same(scenario) == ["made", ("lost", None)]


def test_abort_prevents_a_later_read() -> None:
    """A callback that runs all the same reads nothing."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            peer.send(b"data")
            transport.abort()
            transport._read_ready()
            await soon(seen.lost)
            return seen.seen

    assert same(scenario) == ["made", ("lost", None)]


def test_a_method_of_the_instance_is_called() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (_, peer):
            peer.send(b"1")
            await soon(lambda: seen.has(1))
            seen.data_received = lambda data: seen.seen.append(("mine", data))  # type: ignore[method-assign]
            peer.send(b"2")
            await soon(lambda: ("mine", b"2") in seen.seen)
            del seen.data_received
            peer.send(b"3")
            await soon(lambda: b"3" in seen.seen)
            return seen.seen

    assert same(scenario) == ["made", b"1", ("mine", b"2"), b"3", ("lost", None)]


def test_a_protocol_without_asyncios_base_class_works() -> None:
    class Duck:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *args: self.seen.append((name, *(arg for arg in args if isinstance(arg, bytes))))

    async def scenario() -> list[Any]:
        async with connection(duck := Duck()) as (_, peer):  # type: ignore[arg-type]
            peer.send(b"data")
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: ("connection_lost",) in duck.seen)
            return duck.seen

    assert same(scenario) == [
        ("connection_made",),
        ("data_received", b"data"),
        ("eof_received",),
        ("connection_lost",),
    ]


@pytest.mark.parametrize("inside", [True, False], ids=["in a callback", "between"])
def test_set_protocol_redirects_later_data(inside: bool) -> None:
    """From plain to plain, to buffered and back; later data goes to the new one."""

    async def scenario() -> list[Any]:
        order: list[Any] = []

        def made(kind: type[Keeps], number: int) -> Keeps:
            class Switches(kind):  # type: ignore[misc, valid-type]
                def keep(self, data: bytes) -> None:
                    order.append((number, data))
                    if inside:
                        switch()

            return Switches()

        protocols = [
            made(kind, number) for number, kind in enumerate([Plain, Plain, Buffered, Buffered, Plain])
        ]

        def switch() -> None:
            now = protocols.index(transport.get_protocol())
            transport.set_protocol(protocols[(now + 1) % len(protocols)])

        async with connection(protocols[0]) as (transport, peer):
            for number in range(12):
                peer.send(bytes([number]))
                await soon(lambda number=number: len(order) == number + 1)  # type: ignore[misc]
                if not inside:
                    switch()
        return order

    assert same(scenario) == [(number % 5, bytes([number])) for number in range(12)]


def test_set_protocol_passes_waiting_data_to_the_new_one() -> None:
    """As a server does that upgrades: data not read yet goes to the new protocol."""

    class Upgrades(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.set_protocol(new)
            self.transport.pause_reading()

    new = Plain()

    async def scenario() -> list[Any]:
        new.seen.clear()
        async with connection(old := Upgrades()) as (transport, peer):
            peer.send(b"upgrade")
            await soon(lambda: old.has(7))
            peer.send(b"the rest")
            await turns()
            assert new.seen == []
            transport.resume_reading()
            await soon(lambda: new.has(8))
            return [old.seen, new.seen]

    assert same(scenario) == [["made", b"upgrade"], [b"the rest", ("lost", None)]]


def test_callbacks_run_in_the_transports_context() -> None:
    """Callbacks run in the context in which the transport was made, also when reading was resumed in another.

    With asyncio before 3.15, a task that resumes reading gives its context to all later reads.
    """
    variable = contextvars.ContextVar("variable", default="none")

    class Looks(Plain):
        def data_received(self, data: bytes) -> None:
            self.seen.append((data, variable.get()))
            variable.set(variable.get() + "+")

    async def scenario() -> list[Any]:
        variable.set("made")
        async with connection(seen := Looks()) as (transport, peer):
            variable.set("later")
            peer.send(b"1")
            await soon(lambda: len(seen.seen) == 2)
            peer.send(b"2")
            await soon(lambda: len(seen.seen) == 3)
            transport.pause_reading()
            transport.resume_reading()
            peer.send(b"3")
            await soon(lambda: len(seen.seen) == 4)
            return [seen.seen[1:4], variable.get()]

    assert on("pyepoll", scenario) == [[(b"1", "made"), (b"2", "made+"), (b"3", "made++")], "later"]
    if sys.version_info >= (3, 15):
        same(scenario)


def test_streams_read_lines_as_on_asyncio() -> None:
    async def scenario() -> list[Any]:
        said: list[Any] = []
        served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for line in reader:
                writer.write(line.upper())
                await writer.drain()
            writer.write_eof()
            writer.close()
            await writer.wait_closed()
            served.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for line in b"one\n", b"two\nthree\n", b"x" * 60_000 + b"\n":
                writer.write(line)
                for _ in range(line.count(b"\n")):
                    said.append(len(await reader.readline()))
            writer.write(b"no newline")
            writer.write_eof()
            said.append(await reader.read())
            writer.close()
            await writer.wait_closed()
            await served.wait()
        return said

    assert same(scenario) == [4, 4, 6, 60_001, b"NO NEWLINE"]


def test_extra_info_describes_the_socket() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            sock = transport.get_extra_info("socket")
            assert transport.get_extra_info("peername") == peer.getsockname()
            assert transport.get_extra_info("sockname") == peer.getpeername()
            assert sock.fileno() == transport._sock_fd
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            names = sorted(transport._extra)
            transport.close()
            await soon(seen.lost)
            return [type(sock).__name__, names, transport.get_extra_info("nothing", 7), sock.fileno()]

    assert same(scenario) == ["TransportSocket", ["peername", "socket", "sockname"], 7, -1]


def test_a_slow_reader_loses_no_data() -> None:
    """One transport writes more than the other reads: each waits for the other, nothing is lost."""
    much = bytes(range(256)) * 8000

    class Slow(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.0005, self.transport.resume_reading)

    async def scenario() -> list[Any]:
        async with connection(writer := Plain(), sock=small_buffers) as (transport, peer):
            slow = Slow()
            loop = asyncio.get_running_loop()
            other, _ = await loop.create_connection(lambda: slow, sock=peer.dup())
            transport.write(much)
            transport.close()
            await soon(slow.lost)
            assert b"".join(what for what in slow.seen if isinstance(what, bytes)) == much
            other.close()
            await soon(writer.lost)
            return [writer.seen, slow.seen[-2:]]

    same(scenario)


def test_the_comparison_distinguishes_errors() -> None:
    """The function that the comparisons use tells two errors apart."""
    assert error_text(None) != error_text(OSError()) != error_text(ValueError())

    async def scenario() -> str:
        return type(asyncio.get_running_loop()).__name__

    with pytest.raises(AssertionError, match="where asyncio has"):
        same(scenario)
