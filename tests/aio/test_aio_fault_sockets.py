"""Faults of servers, sendfile, datagrams and TLS."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support.faults import Side, closing, sides
from support.fds import no_fd_left
from support.loops import Plain, complaints, receive, small_buffers, soon, turns

MUCH = bytes(1_000_000)
CERTIFICATE = Path(__file__).with_name("certificate.pem")


@sides("accept: EMFILE floods the log")
def test_a_lack_of_fds_is_reported_once(side: Side) -> None:
    """Several connections wait to be accepted, and there is no fd; when there are some, they are accepted."""

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        reported = complaints()
        made: list[asyncio.BaseTransport] = []

        class Made(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        server: Any = await loop.create_server(Made, "127.0.0.1", 0, backlog=100)
        with contextlib.ExitStack() as stack:
            address = server.sockets[0].getsockname()
            with no_fd_left(3):
                for _ in range(3):
                    stack.enter_context(socket.create_connection(address))
                await soon(lambda: bool(reported))
                await turns(20)
                count = len(reported)
                assert {context["exception"].errno for context in reported} == {errno.EMFILE}
            if side.patience >= 20:
                await soon(lambda: len(made) == 3)
            for transport in made:
                transport.close()
            server.close()
            await turns()
        return count

    if side.name == "uvloop":
        pytest.skip("libuv accepts with a spare fd, and drops the connection")
    assert side.run(scenario) <= 2


async def abort_a_sendfile() -> tuple[int, BaseException | None]:
    """Abort a transport while loop.sendfile() waits for the peer; the fd it had, and the outcome."""
    loop = asyncio.get_running_loop()
    near, peer = socket.socketpair()
    seen = Plain()
    with closing(peer), tempfile.TemporaryFile() as file:
        file.truncate(len(MUCH))
        transport: Any = (await loop.create_connection(lambda: seen, sock=small_buffers(near)))[0]
        fd = near.fileno()
        task = asyncio.ensure_future(loop.sendfile(transport, file))
        await asyncio.sleep(0.02)
        assert not task.done()
        transport.abort()
        await soon(seen.lost)
        done, _ = await asyncio.wait([task], timeout=0.2 if fd else None)
        if not done:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        outcome = task.exception() if done and not task.cancelled() else None
    return fd, outcome


NO_SENDFILE = "uvloop has no sendfile()"


@sides("sendfile: abort hangs")
def test_an_abort_ends_sendfile(side: Side) -> None:
    if side.name == "uvloop":
        pytest.skip(NO_SENDFILE)
    _, error = side.run(abort_a_sendfile)
    assert isinstance(error, ConnectionError)


@sides("sendfile: abort poisons the fd")
def test_an_aborted_sendfile_leaves_the_fd_clean(side: Side) -> None:
    if side.name == "uvloop":
        pytest.skip(NO_SENDFILE)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reported = complaints()
        fd, _ = await abort_a_sendfile()
        others: list[socket.socket] = []
        while not others or max(other.fileno() for other in others) < fd:
            others += socket.socketpair()
        (new,) = (other for other in others if other.fileno() == fd)
        peer = others[others.index(new) ^ 1]
        new.setblocking(False)
        peer.setblocking(False)
        with closing(*others):
            transport, seen = await loop.create_connection(Plain, sock=new)
            transport.write(MUCH)
            assert len(await receive(peer, len(MUCH))) == len(MUCH)
            peer.send(b"data")
            await soon(lambda: seen.has(4))
            transport.close()
            await soon(seen.lost)
        assert reported == []

    side.run(scenario)


@sides("datagrams: count leaks")
def test_the_size_of_a_datagram_transports_buffer_returns_to_zero(side: Side, tmp_path: Path) -> None:
    """Else it is above the high-water mark indefinitely after some time, and writing stays paused."""
    if side.name == "uvloop":
        pytest.skip("uvloop opens no datagram transport on a Unix socket, the kind that can be full")

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        near, peer = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        peer.bind(str(tmp_path / "peer"))
        near.connect(str(tmp_path / "peer"))
        near.setblocking(False)
        seen: list[str] = []

        class Protocol(asyncio.DatagramProtocol):
            def pause_writing(self) -> None:
                seen.append("pause")

            def resume_writing(self) -> None:
                seen.append("resume")

        with closing(peer):
            transport: Any = (await loop.create_datagram_endpoint(Protocol, sock=near))[0]
            transport.set_write_buffer_limits(high=1000, low=0)
            sizes: list[int] = []
            for _ in range(3):
                for _ in range(2000):
                    transport.sendto(b"data")
                assert transport.get_write_buffer_size() > 0
                peer.setblocking(False)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        for _ in range(2000):
                            await loop.sock_recv(peer, 100)
                await turns()
                sizes.append(transport.get_write_buffer_size())
            transport.close()
            await turns()
        return [sizes, seen]

    assert side.run(scenario) == [[0, 0, 0], ["pause", "resume"] * 3]


class TlsClient:
    """A client that speaks TLS over bytes that it is given."""

    def __init__(self) -> None:
        self.context = ssl.create_default_context(cafile=CERTIFICATE)
        self.context.check_hostname = False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def handshake(self, peer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.incoming.write(await loop.sock_recv(peer, 65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                await loop.sock_sendall(peer, self.outgoing.read())
                return


@sides("start_tls: data that was read before")
@pytest.mark.parametrize("by_loop", [False, True], ids=["StreamWriter.start_tls", "loop.start_tls"])
def test_start_tls_uses_data_that_was_read_before(side: Side, by_loop: bool) -> None:
    """A line and the beginning of TLS arrive together, as with the PROXY protocol."""

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        near, peer = socket.socketpair()
        peer.setblocking(False)
        client = TlsClient()
        with closing(peer):
            made: list[Any] = []
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader, lambda *streams: made.extend(streams))
            await loop.connect_accepted_socket(lambda: protocol, near)
            writer = made[1]
            peer.send(b"PROXY UNKNOWN\r\n" + client.hello())
            assert await reader.readline() == b"PROXY UNKNOWN\r\n"
            handshake = asyncio.ensure_future(client.handshake(peer))
            if by_loop:
                writer._transport = await loop.start_tls(
                    writer.transport, protocol, context, server_side=True
                )
            else:
                await writer.start_tls(context)
            await handshake
            client.tls.write(b"secret")
            peer.send(client.outgoing.read())
            received = await reader.readexactly(6)
            writer.transport.abort()
            await turns()
            return received

    assert side.run(scenario) == b"secret"


@sides("max_size is ignored")
def test_max_size_limits_a_read(side: Side) -> None:
    if side.name == "uvloop":
        pytest.skip("uvloop's transport has no max_size")
    sizes: list[int] = []

    class Sizes(Plain):
        def data_received(self, data: bytes) -> None:
            sizes.append(len(data))
            super().data_received(data)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        with closing(peer):
            transport, seen = await loop.create_connection(Sizes, sock=near)
            transport.max_size = 1000  # type: ignore[attr-defined]
            peer.send(bytes(10_000))
            await soon(lambda: seen.has(10_000))
            transport.close()
            await soon(seen.lost)

    side.run(scenario)
    assert sizes == [1000] * 10


def test_the_file_descriptor_of_an_unwatched_socket_is_free_after_a_failed_connect() -> None:
    """sock_connect() that is refused leaves nothing behind for the next socket with the fd."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
        for _ in range(3):
            with socket.socket() as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionRefusedError):
                    await loop.sock_connect(sock, address)
        near, peer = socket.socketpair()
        with closing(near, peer):
            near.setblocking(False)
            task = asyncio.ensure_future(loop.sock_recv(near, 10))
            await turns()
            os.write(peer.fileno(), b"data")
            assert await task == b"data"

    Side("pyepoll", 20).run(scenario)
