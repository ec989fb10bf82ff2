"""TLS on our loop: from the start, and after start_tls() on both ends; data arrives complete."""

import asyncio
import contextvars
import pathlib
import socket
import ssl
import sys
import tracemalloc
from typing import Any

import pytest
from support.loops import Plain, complaints, connection, error_text, on, same, soon, tcp_pair, turns

from pyepoll import aio

# Self-signed, for localhost, valid until 2120: made by openssl ca -selfsign.
CERTIFICATE = str(pathlib.Path(__file__).with_name("certificate.pem"))
MUCH = bytes(range(256)) * 4000


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATE)


def test_streams_over_tls_deliver_everything() -> None:
    async def scenario() -> list[Any]:
        complained = complaints()
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
            done.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context()) as server:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
            )
            writer.write(MUCH)
            drained = asyncio.create_task(writer.drain())
            assert await reader.readexactly(len(MUCH)) == MUCH
            await drained
            peer = writer.get_extra_info("peercert")["subject"]
            writer.close()
            await writer.wait_closed()
            await done.wait()
        return [peer, complained]

    assert same(scenario) == [((("commonName", "localhost"),),), []]


def test_debug_mode_may_be_enabled_during_a_handshake() -> None:
    """asyncio raises TypeError then, at both ends."""

    async def main() -> list[Any]:
        complained = complaints()
        loop = asyncio.get_running_loop()
        served = Plain()
        context = server_context()
        context.sni_callback = lambda *_: loop.set_debug(True)
        async with await loop.create_server(lambda: served, "127.0.0.1", 0, ssl=context) as server:
            transport, _ = await loop.create_connection(
                Plain, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
            )
            assert loop.get_debug()
            transport.write(b"data")
            await soon(lambda: served.has(4))
            transport.close()
            await soon(served.lost)
        return complained

    assert on("pyepoll", main) == []


class Looks(asyncio.Protocol):
    """Adds to a context variable at each call, after it has noted its value."""

    def __init__(self, variable: contextvars.ContextVar[str]) -> None:
        self.variable = variable
        self.seen: list[tuple[str, str]] = []

    def look(self, call: str) -> None:
        self.seen.append((call, self.variable.get()))
        self.variable.set(self.variable.get() + "+")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.look("made")

    def data_received(self, data: bytes) -> None:
        self.look(data.decode())
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.look("lost")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_has_a_context_of_its_own(tls: bool) -> None:
    """From CPython 3.15 on every connection has one: a copy of the server's, or of its maker's."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        variable = contextvars.ContextVar("variable", default="none")
        served: list[Looks] = []

        def serve() -> Looks:
            served.append(Looks(variable))
            return served[-1]

        variable.set("server")
        server = await loop.create_server(serve, "127.0.0.1", 0, ssl=server_context() if tls else None)
        async with server:
            made: list[Looks] = []
            for number in range(2):
                variable.set(f"client {number}")
                _, protocol = await loop.create_connection(
                    lambda: Looks(variable),
                    *server.sockets[0].getsockname(),
                    ssl=client_context() if tls else None,
                    server_hostname="localhost" if tls else None,
                )
                made.append(protocol)
                # The answer ends the exchange: a protocol that answers every answer would not stop.
                asked = Plain()
                variable.set("later")
                protocol.transport.set_protocol(asked)
                protocol.transport.write(b"data")
                await soon(lambda asked=asked: asked.has(4))  # type: ignore[misc]
                protocol.transport.set_protocol(protocol)
                protocol.transport.close()
                await soon(lambda: made[-1].seen[-1][0] == "lost" and served[-1].seen[-1][0] == "lost")
            if sys.version_info < (3, 15):
                # close() in a task: asyncio's connection_lost() gets the context of the task.
                for each in made:
                    each.seen[-1] = ("lost", "")
            return [[each.seen for each in protocols] for protocols in (served, made)]

    served, made = same(scenario)
    assert [[call for call, _ in calls] for calls in served] == [["made", "data", "lost"]] * 2
    if sys.version_info >= (3, 15):
        seen = [("made", "server"), ("data", "server+"), ("lost", "server++")]
        assert served == [seen, seen]
        assert made == [[("made", f"client {n}"), ("lost", f"client {n}+")] for n in range(2)]


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_start_tls_upgrades_a_plain_connection(tcp: bool) -> None:
    """Plain words, then the same connection with TLS, through our transport's buffered reading."""

    class Line(Plain):
        pass

    async def scenario() -> list[Any]:
        complained = complaints()
        loop = asyncio.get_running_loop()
        pair = tcp_pair() if tcp else socket.socketpair()
        ends = [Line(), Line()]
        transports: list[Any] = [
            (await loop.create_connection(lambda end=end: end, sock=sock))[0]  # type: ignore[misc]
            for end, sock in zip(ends, pair, strict=True)
        ]
        if isinstance(loop, aio.EventLoop):
            assert {type(transport) for transport in transports} == {aio.SocketTransport}
        for transport, word in zip(transports, (b"hello", b"starttls"), strict=True):
            transport.write(word)
        await soon(lambda: ends[0].has(8) and ends[1].has(5))
        client, server = await asyncio.gather(
            loop.start_tls(transports[0], ends[0], client_context(), server_hostname="localhost"),
            loop.start_tls(transports[1], ends[1], server_context(), server_side=True),
        )
        assert client is not None
        assert server is not None
        client.write(MUCH)
        client.write(b"secret")
        server.write(b"answer")
        await soon(lambda: ends[0].has(14) and ends[1].has(len(MUCH) + 11))
        words = [ends[0].seen, [ends[1].seen[0], ends[1].seen[1] == b"hello" + MUCH + b"secret"]]
        client.close()
        await soon(lambda: ends[0].lost() and ends[1].lost())
        return [words, complained]

    words, complained = same(scenario)
    assert words[0][:2] == ["made", b"starttlsanswer"]
    assert words[1] == ["made", True]
    assert complained == []


def test_start_tls_works_on_streams() -> None:
    async def scenario() -> list[Any]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            await writer.drain()
            await writer.start_tls(server_context())
            writer.write((await reader.readline()).upper())
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"STARTTLS\n")
            said = [await reader.readline()]
            await writer.start_tls(client_context(), server_hostname="localhost")
            writer.write(b"secret\n")
            said.append(await reader.readline())
            said.append(await reader.read())
            writer.close()
            await writer.wait_closed()
        return said

    assert same(scenario) == [b"go\n", b"SECRET\n", b""]


def test_a_failed_handshake_is_reported() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        complaints()
        async with connection(Plain()) as (transport, peer):
            task = asyncio.create_task(
                loop.start_tls(
                    transport, transport.get_protocol(), client_context(), server_hostname="localhost"
                )
            )
            await soon(lambda: transport._protocol.__class__.__name__ == "SSLProtocol")
            peer.send(b"this is no TLS" * 10)
            (error,) = await asyncio.gather(task, return_exceptions=True)
            return [type(error).__name__, isinstance(error, ssl.SSLError)]

    assert same(scenario) == ["SSLError", True]


def test_an_unknown_certificate_is_refused() -> None:
    async def scenario() -> list[Any]:
        complaints()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context()) as server:
            with pytest.raises(ssl.SSLCertVerificationError) as raised:
                await asyncio.open_connection(
                    *server.sockets[0].getsockname(),
                    ssl=ssl.create_default_context(),
                    server_hostname="localhost",
                )
            # Let the server see it.
            await asyncio.sleep(0.01)
        return [type(raised.value).__name__]

    assert same(scenario) == ["SSLCertVerificationError"]


@pytest.mark.parametrize("server_side", [False, True])
def test_tls_runs_on_our_transport(server_side: bool) -> None:
    async def scenario() -> type:
        loop = asyncio.get_running_loop()
        ends: list[Any] = list(tcp_pair())
        client, server = await asyncio.gather(
            loop.create_connection(Plain, ssl=client_context(), sock=ends[0], server_hostname="localhost"),
            loop.connect_accepted_socket(Plain, ends[1], ssl=server_context()),
        )
        transport: Any = (server if server_side else client)[0]
        carrier = type(transport._ssl_protocol._transport)
        for transport, protocol in client, server:
            transport.abort()
            await soon(protocol.lost)
        return carrier

    assert on("pyepoll", scenario) is aio.SocketTransport


def test_a_handshake_times_out() -> None:
    """The peer says nothing."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        near, peer = tcp_pair()
        with peer, near:
            start = loop.time()
            with pytest.raises(ConnectionAbortedError) as raised:
                await loop.create_connection(
                    Plain,
                    ssl=client_context(),
                    sock=near,
                    server_hostname="localhost",
                    ssl_handshake_timeout=0.1,
                )
            assert loop.time() - start >= 0.1
            await asyncio.sleep(0.01)
        return [error_text(raised.value)]

    assert "ConnectionAbortedError" in same(scenario)[0]


def test_the_comparison_recognises_ssl_errors() -> None:
    assert on("pyepoll", lambda: asyncio.sleep(0, error_text(ssl.SSLError()))) == "SSLError: ()"


class Pieces(asyncio.Protocol):
    """Records its calls; data as it comes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.seen.append(data)

    def eof_received(self) -> None:
        self.seen.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", error_text(exc)))


async def tls_pair(made: list[Pieces]) -> tuple[asyncio.Server, Any]:
    """A server whose protocols are added to a list, and the transport of a client."""

    def make() -> Pieces:
        made.append(Pieces())
        return made[-1]

    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=server_context())
    client, _ = await loop.create_connection(
        Pieces, *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
    )
    return server, client


@pytest.mark.parametrize("sizes", [[1], [1] * 100, [16384, 1], [16385], [40_000, 0, 7], [300_000]], ids=str)
def test_records_are_delivered_before_the_end(sizes: list[int]) -> None:
    """Several come at once, with the alert that ends TLS behind them."""

    async def scenario() -> Any:
        made: list[Pieces] = []
        server, client = await tls_pair(made)
        async with server:
            for number, size in enumerate(sizes):
                client.write(bytes([number]) * size)
            client.close()
            await soon(lambda: bool(made[0].seen) and made[0].seen[-1] == ("lost", None))
            seen = made[0].seen
            assert seen[-2] == "eof"
            return b"".join(seen[:-2])

    assert same(scenario) == b"".join(bytes([number]) * size for number, size in enumerate(sizes))


def test_reading_may_pause_between_records() -> None:
    async def scenario() -> Any:
        made: list[Pieces] = []
        server, client = await tls_pair(made)
        async with server:
            client.write(b"one")
            await soon(lambda: made != [] and made[0].seen == [b"one"])
            made[0].transport.pause_reading()
            client.write(b"two")
            client.write(b"three")
            await asyncio.sleep(0.01)
            assert made[0].seen == [b"one"]
            made[0].transport.resume_reading()
            await soon(lambda: b"".join(made[0].seen) == b"onetwothree")
            client.close()
            await soon(lambda: made[0].seen[-1] == ("lost", None))

    same(scenario)


def test_connections_do_not_mix_what_they_receive() -> None:
    """They share one buffer to receive into, both ends of all of them."""

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(5000):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def talk(number: int) -> None:
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
            )
            for size in (1, 100, 16_384, 16_385, 50_000, 3):
                data = bytes([number]) * size
                writer.write(data)
                assert await reader.readexactly(size) == data
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context()) as server:
            await asyncio.gather(*(talk(number) for number in range(10)))

    on("pyepoll", scenario)


def test_an_idle_connection_has_no_buffer_of_its_own() -> None:
    async def scenario() -> None:
        made: list[Pieces] = []
        server, client = await tls_pair(made)
        async with server:
            clients = [client]
            tracemalloc.start()
            try:
                for _ in range(10):
                    clients.append(
                        (
                            await asyncio.get_running_loop().create_connection(
                                Pieces,
                                *server.sockets[0].getsockname(),
                                ssl=client_context(),
                                server_hostname="localhost",
                            )
                        )[0]
                    )
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # Both ends; asyncio has a buffer of 256 KiB for each. The memory of OpenSSL is not traced.
            assert kept < 20 * 24 * 1024
            for each in clients:
                each.close()
            await soon(lambda: all(protocol.seen[-1:] == [("lost", None)] for protocol in made))

    on("pyepoll", scenario)


def test_start_tls_shares_the_buffer_too() -> None:
    async def scenario() -> None:
        near, far = tcp_pair()
        loop = asyncio.get_running_loop()
        client, seen = await loop.create_connection(Pieces, sock=near)
        server, served = await loop.connect_accepted_socket(Pieces, far)
        started: Any = await asyncio.gather(
            loop.start_tls(client, seen, client_context(), server_hostname="localhost"),
            loop.start_tls(server, served, server_context(), server_side=True),
        )
        mine: Any = client.get_protocol()
        other: Any = server.get_protocol()
        assert mine._ssl_buffer is other._ssl_buffer
        started[0].write(MUCH)
        await soon(lambda: sum(map(len, served.seen)) == len(MUCH))
        assert b"".join(served.seen) == MUCH
        for each in started:
            each.close()
        await soon(lambda: all(each.seen[-1:] == [("lost", None)] for each in (seen, served)))

    on("pyepoll", scenario)


def test_start_tls_refuses_what_it_cannot_upgrade() -> None:
    async def scenario() -> Any:
        complained = complaints()
        errors = []
        async with connection(Plain()) as (transport, _):
            wrong: list[tuple[Any, Any]] = [
                (None, client_context()),
                (transport, None),
                (object(), client_context()),
            ]
            for upgraded, context in wrong:
                with pytest.raises(TypeError) as caught:
                    await asyncio.get_running_loop().start_tls(upgraded, Plain(), context)
                errors.append(type(caught.value))
            await turns()
        return [errors, complained]

    assert same(scenario) == [[TypeError] * 3, []]
