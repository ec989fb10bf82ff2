"""The cases handled in C and those that call methods of the socket or of asyncio."""

import asyncio
import asyncio.selector_events
import os
import socket
from typing import Any

import pytest
from support.loops import Buffered, Keeps, Plain, connection, on, receive, small_buffers, soon
from support.processes import run

from pyepoll import aio

FLOW: Any = asyncio.transports._FlowControlMixin


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which methods of sockets, and of asyncio's flow control, are called from now on."""
    called: list[str] = []

    def record(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in "recv", "recv_into", "send", "sendmsg", "sendall":
        record(socket.socket, name)
    record(FLOW, "_maybe_pause_protocol")
    return called


def exchange(name: str, kind: type[Keeps], calls: list[str]) -> list[str]:
    """The calls of an exchange of plain messages."""

    async def scenario() -> list[str]:
        async with connection(seen := kind(), tcp=True) as (transport, peer):
            calls.clear()
            for number in range(20):
                transport.write(b"data")
                transport.write(bytes(number + 1))
                transport.write(bytes(70_000))
            for number in range(1, 20):
                # Not by a method of the socket's: these are watched.
                os.write(peer.fileno(), b"data")
                await soon(lambda number=number: seen.has(4 * number))  # type: ignore[misc]
            assert transport.get_write_buffer_size() == 0
            return list(calls)

    return on(name, scenario)


@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_common_reads_and_writes_are_in_c(kind: type[Keeps], calls: list[str]) -> None:
    assert exchange("pyepoll", kind, calls) == []


@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_a_call_of_asyncios_own_is_detected(kind: type[Keeps], calls: list[str]) -> None:
    """Were it not in C, it would be seen."""
    seen = exchange("asyncio", kind, calls)
    assert seen.count("send") >= 60
    assert seen.count("recv" if kind is Plain else "recv_into") == 19


def on_ours(calls: list[str], act: Any, **options: Any) -> list[str]:
    async def scenario() -> list[str]:
        async with connection(seen := Plain(), **options) as (transport, peer):
            calls.clear()
            await act(seen, transport, peer)
            return list(calls)

    return on("pyepoll", scenario)


@pytest.mark.parametrize("data", [bytearray(b"data"), memoryview(b"data"), type("B", (bytes,), {})(b"data")])
def test_other_kinds_of_data_are_sent_in_c(calls: list[str], data: Any) -> None:
    async def act(seen: Any, transport: Any, peer: socket.socket) -> None:
        transport.write(data)
        assert os.read(peer.fileno(), 100) == b"data"

    assert on_ours(calls, act) == []


def test_asyncios_flow_control_is_called_above_the_limit_only(calls: list[str]) -> None:
    async def act(seen: Any, transport: Any, peer: socket.socket) -> None:
        transport.write(bytes(1_000_000))
        transport.write(b"more")
        before = list(calls)
        await receive(peer, 1_000_004)
        calls[:] = before

    assert on_ours(calls, act, sock=small_buffers) == ["_maybe_pause_protocol"]


@pytest.mark.parametrize("state", ["write_eof", "sendfile", "close"])
def test_a_write_in_a_refusing_state_sends_nothing(
    calls: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(seen: Any, transport: Any, peer: socket.socket) -> None:
        if state == "write_eof":
            transport.write_eof()
        elif state == "sendfile":
            transport._empty_waiter = asyncio.get_running_loop().create_future()
        if state == "close":
            transport.close()
            transport.write(b"data")
        else:
            with pytest.raises(RuntimeError):
                transport.write(b"data")
        transport._empty_waiter = None

    assert on_ours(calls, act) == []


def test_methods_of_a_subclass_of_socket_are_called(calls: list[str]) -> None:
    class Own(socket.socket):
        pass

    def own(sock: socket.socket) -> socket.socket:
        return Own(sock.family, sock.type, sock.proto, fileno=sock.detach())

    async def act(seen: Any, transport: Any, peer: socket.socket) -> None:
        transport.write(b"data")
        os.write(peer.fileno(), b"data")
        await soon(lambda: seen.has(4))

    assert on_ours(calls, act, sock=own) == ["send", "recv"]


def test_every_way_to_a_stream_has_our_transport(tmp_path: Any) -> None:
    """Connected, accepted, given as a socket; TCP, Unix. test_aio_tls.py has TLS."""

    async def scenario() -> list[type]:
        kinds: list[type] = []

        class Kind(Plain):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                kinds.append(type(transport))

        loop = asyncio.get_running_loop()
        for server in (
            await loop.create_server(Kind, "127.0.0.1", 0),
            await loop.create_unix_server(Kind, str(tmp_path / "socket")),
        ):
            name = server.sockets[0].getsockname()
            count = len(kinds)
            if isinstance(name, str):
                client: Any = (await loop.create_unix_connection(Kind, name))[0]
            else:
                client = (await loop.create_connection(Kind, *name))[0]
            await soon(lambda count=count: len(kinds) == count + 2)  # type: ignore[misc]
            client.abort()
            server.close()
            await server.wait_closed()
        a, b = socket.socketpair()
        for sock in a, b:
            (await loop.connect_accepted_socket(Kind, sock))[0].abort()
        return kinds

    assert on("pyepoll", scenario) == [aio.SocketTransport] * 6
    assert issubclass(aio.SocketTransport, asyncio.Transport)
    assert issubclass(aio.SocketTransport, FLOW)


def test_a_replaced_socket_class_uses_the_methods_of_sockets() -> None:
    """As eventlet puts there when it patches a program."""
    printed = run("""
        import asyncio, socket

        class Green:
            pass

        before, socket.socket = socket.socket, Green
        from pyepoll import aio
        socket.socket = before

        async def main():
            ours, peer = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=ours)
            assert type(writer.transport) is aio.SocketTransport
            writer.write(b"sent")
            peer.send(b"received")
            await asyncio.sleep(0)
            print(peer.recv(100), await reader.readexactly(8))
            peer.close()
            writer.close()
            await writer.wait_closed()

        aio.run(main())
    """)
    assert printed == "b'sent' b'received'\n"
