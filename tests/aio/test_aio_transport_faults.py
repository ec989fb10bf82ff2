"""Where asyncio's transport is wrong on some version, ours is right on every version."""

import asyncio
import contextlib
import contextvars
import io
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loops import Plain, connection, on, receive, small_buffers, soon, turns

USER = contextvars.ContextVar("USER", default="nobody")
CERTIFICATE = str(Path(__file__).with_name("certificate.pem"))


class Looks(Plain):
    def look(self) -> None:
        self.seen.append(USER.get())

    def data_received(self, data: bytes) -> None:
        self.look()

    def resume_writing(self) -> None:
        self.look()


def test_a_task_that_resumes_reading_does_not_give_its_context() -> None:
    async def request(transport: Any) -> None:
        USER.set("alice")
        transport.pause_reading()
        transport.resume_reading()

    async def scenario() -> list[Any]:
        async with connection(seen := Looks()) as (transport, peer):
            await asyncio.create_task(request(transport))
            peer.send(b"data")
            await soon(lambda: len(seen.seen) == 2)
            return seen.seen[1:2]

    assert on("pyepoll", scenario) == ["nobody"]


def test_a_task_that_writes_does_not_give_its_context() -> None:
    """Neither does one whose data has to wait."""

    async def request(transport: Any) -> None:
        USER.set("alice")
        transport.write(bytes(1 << 20))

    async def scenario() -> list[Any]:
        async with connection(seen := Looks(), sock=small_buffers) as (transport, peer):
            await asyncio.create_task(request(transport))
            assert seen.seen[1:] == ["pause"]
            loop = asyncio.get_running_loop()
            while len(seen.seen) == 2:
                await loop.sock_recv(peer, 1 << 20)
                await turns()
            return seen.seen[2:3]

    assert on("pyepoll", scenario) == ["nobody"]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="CPython 3.15 calls all in one context")
def test_a_callback_may_run_the_loop_until_others_of_its_connection_are_called() -> None:
    """As programs do with nest_asyncio. Nothing can run in the context that the callback has entered."""

    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()

        class Nests(Plain):
            def data_received(self, data: bytes) -> None:
                self.seen.append(data)
                if data != b"nest":
                    return
                self.transport.pause_reading()
                self.transport.write(bytes(1 << 20))
                self.run_until("resume")
                self.transport.resume_reading()
                peer.send(b"inner")
                self.run_until(b"inner")
                self.transport.close()
                self.run_until(("lost", None))
                self.seen.append("end of the callback")

            def run_until(self, last: object) -> None:
                for _ in range(10_000):
                    if self.seen[-1] == last:
                        return
                    with contextlib.suppress(BlockingIOError):
                        peer.recv(1 << 20)
                    loop.call_soon(int)
                    loop._run_once()
                raise AssertionError(f"{last!r} never came")

        async with connection(seen := Nests(), sock=small_buffers) as (_, peer):
            peer.send(b"nest")
            await soon(lambda: "end of the callback" in seen.seen or seen.lost())
            return seen.seen[:]

    assert on("pyepoll", scenario) == [
        *("made", b"nest", "pause", "resume", b"inner"),
        *(("lost", None), "end of the callback"),
    ]


@pytest.mark.parametrize("tls", [False, True])
def test_the_context_given_is_that_of_all_callbacks(tls: bool) -> None:
    """_make_socket_transport(context=...) and _make_ssl_transport(context=...), new in CPython 3.15."""
    given = contextvars.copy_context()
    given.run(USER.set, "given")

    class Sees(Looks):
        def connection_made(self, transport: Any) -> None:
            self.look()

        def connection_lost(self, exc: Exception | None) -> None:
            self.look()
            self.seen.append("lost")

    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
        seen = Sees()
        if not tls:
            transport = loop._make_socket_transport(ends[0], seen, context=given)
            peer = (await loop.create_connection(Plain, sock=ends[1]))[0]
        else:
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(CERTIFICATE)
            client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.load_verify_locations(CERTIFICATE)
            transport = loop._make_ssl_transport(ends[0], seen, server, server_side=True, context=given)
            peer = (
                await loop.create_connection(Plain, sock=ends[1], ssl=client, server_hostname="localhost")
            )[0]
        peer.write(b"data")
        await soon(lambda: len(seen.seen) == 2)
        transport.close()
        await soon(lambda: "lost" in seen.seen)
        peer.abort()
        await turns()
        return [entry for entry in seen.seen if entry != "eof"]

    assert on("pyepoll", scenario) == ["given", "given", "given", "lost"]


@pytest.mark.parametrize("how", ["abort", "close"])
def test_sendfile_ends_when_the_transport_does(how: str, tmp_path: Path) -> None:
    """It raises, and the fd can be used by another connection."""
    path = tmp_path / "file"
    path.write_bytes(bytes(8 << 20))

    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        async with connection(seen := Plain(), sock=small_buffers) as (transport, _):
            fd = transport._sock_fd
            with path.open("rb") as file:
                sending = asyncio.create_task(loop.sendfile(transport, file))
                await turns(20)
                assert not sending.done()
                getattr(transport, how)()
                await asyncio.wait([sending], timeout=20)
                said = sending.exception()
                await soon(seen.lost)
            assert loop._selector.get_map().get(fd) is None
            assert fd not in loop._transports
            return [isinstance(said, ConnectionError), seen.seen]

    assert on("pyepoll", scenario) == [True, ["made", ("lost", None)]]


@pytest.mark.parametrize("kind", ["native", "fallback"])
def test_a_second_sendfile_is_refused_and_the_first_goes_on(kind: str, tmp_path: Path) -> None:
    """Whether the system sends the file or asyncio, which takes the protocol's place meanwhile."""
    content = bytes(range(256)) * 2048
    path = tmp_path / "file"
    path.write_bytes(content)

    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            with path.open("rb") as file:
                first = asyncio.create_task(
                    loop.sendfile(transport, file if kind == "native" else io.BytesIO(content))
                )
                await turns(20)
                assert not first.done()
                for other in file, io.BytesIO(content):
                    with pytest.raises(RuntimeError, match="sendfile is already in progress"):
                        await loop.sendfile(transport, other)
                received = await receive(peer, len(content))
                assert await first == len(content)
                file.seek(0)
                assert transport.get_protocol() is seen
                again = asyncio.create_task(loop.sendfile(transport, file))
                received += await receive(peer, len(content))
                assert await again == len(content)
            await loop.sock_sendall(peer, b"a reply")
            await soon(lambda: b"a reply" in seen.seen)
            assert received == content * 2
            return [part for part in seen.seen if part not in ("pause", "resume")]

    assert on("pyepoll", scenario) == ["made", b"a reply"]


def test_a_cancelled_sendfile_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8 << 20))

    async def scenario() -> bool:
        loop: Any = asyncio.get_running_loop()
        async with connection(Plain(), sock=small_buffers) as (transport, _):
            with path.open("rb") as file:
                sending = asyncio.create_task(loop.sendfile(transport, file))
                await turns(20)
                sending.cancel()
                await asyncio.wait([sending], timeout=20)
            assert transport.is_reading()
            return sending.cancelled()

    assert on("pyepoll", scenario)


ENDS: dict[str, Callable[[Any], object]] = {
    "abort twice": lambda transport: [transport.abort(), transport.abort()],
    "close, abort": lambda transport: [transport.close(), transport.abort()],
    "abort, close": lambda transport: [transport.abort(), transport.close()],
    "error, close": lambda transport: [transport._fatal_error(OSError("told")), transport.close()],
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_connection_lost_is_called_once(how: str, kept: bool) -> None:
    """Afterwards no method raises AttributeError."""

    async def scenario() -> int:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            if kept:
                transport.write(bytes(1 << 20))
            ENDS[how](transport)
            await soon(seen.lost)
            peer.setblocking(False)
            await turns()
            calls: list[Callable[[], object]] = [
                *(transport.close, transport.abort, transport.write_eof),
                *(transport.pause_reading, transport.resume_reading, transport.get_write_buffer_size),
                *(lambda: transport.write(b"data"), lambda: transport.writelines([b"data"])),
                *(lambda: transport.set_write_buffer_limits(7), lambda: str(transport)),
                *(transport.get_write_buffer_limits, lambda: transport.get_extra_info("socket").fileno()),
                *(transport._read_ready, transport._write_ready),
            ]
            for call in calls:
                call()
            await turns()
            return sum(entry[0] == "lost" for entry in seen.seen if isinstance(entry, tuple))

    assert on("pyepoll", scenario) == 1


def test_a_close_in_resume_writing_ends_once() -> None:
    class Closes(Plain):
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.write(b"last")
            self.transport.close()

    async def scenario() -> list[Any]:
        async with connection(seen := Closes(), sock=small_buffers) as (transport, peer):
            transport.write(bytes(1 << 20))
            data = b""
            loop = asyncio.get_running_loop()
            while more := await loop.sock_recv(peer, 1 << 20):
                data += more
            await soon(seen.lost)
            return [len(data), data[-4:], seen.seen]

    assert on("pyepoll", scenario) == [
        (1 << 20) + 4,
        b"last",
        ["made", "pause", "resume", ("lost", None)],
    ]


def test_start_tls_takes_data_that_came_early() -> None:
    """The peer starts its handshake before the server does (fixed in CPython 3.14)."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(CERTIFICATE)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_verify_locations(CERTIFICATE)

    async def scenario() -> bytes:
        ends = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ends[0])
        loop = asyncio.get_running_loop()
        early: Any = asyncio.StreamReader()
        kept: list[Any] = []
        made: Any = await loop.connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(early, lambda *streams: kept.extend(streams)), ends[1]
        )
        transport, protocol = made
        shake = asyncio.create_task(writer.start_tls(client_context, server_hostname="localhost"))
        await soon(lambda: len(early._buffer) > 100)
        async with asyncio.timeout(20):
            upgraded = await loop.start_tls(transport, protocol, server_context, server_side=True)
            await shake
            assert upgraded is not None
            upgraded.write(b"secret\n")
            got = await reader.readline()
        for end in kept[1], writer:
            end.close()
            await asyncio.gather(end.wait_closed(), return_exceptions=True)
        return got

    assert on("pyepoll", scenario) == b"secret\n"


def test_max_size_limits_a_read() -> None:
    class Sizes(Plain):
        def data_received(self, data: bytes) -> None:
            self.seen.append(len(data))

    async def scenario() -> list[Any]:
        async with connection(seen := Sizes()) as (transport, peer):
            transport.max_size = 1000
            peer.send(bytes(2500))
            await soon(lambda: len(seen.seen) == 4)
            return seen.seen[1:4]

    assert on("pyepoll", scenario) == [1000, 1000, 500]


def test_bulk_reads_are_whole() -> None:
    """From 32 KiB on, the next read goes into an object of its own: no byte is lost or doubled."""
    data = bytes(range(256)) * 4096

    async def scenario() -> bool:
        async with connection(seen := Plain()) as (_, peer):
            await asyncio.get_running_loop().sock_sendall(peer, data * 8)
            await soon(lambda: seen.has(8 * len(data)))
            return bool(seen.seen[1] == data * 8)

    assert on("pyepoll", scenario)
