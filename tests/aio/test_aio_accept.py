"""A server's accept loop: a lack of fds is reported once, and connections come when there are some again."""

import asyncio
import errno
import socket
from typing import Any

import pytest
from support.fds import no_fd_left
from support.loops import Plain, complaints, on, soon

from pyepoll import _sock_calls, aio


def test_a_lack_of_fds_is_reported_once_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sock_calls, "_ACCEPT_RETRY_DELAY", 0.05)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Plain] = []

        def protocol() -> Plain:
            made.append(Plain())
            return made[-1]

        server = await loop.create_server(protocol, "127.0.0.1", 0)
        clients = [socket.socket() for _ in range(5)]
        for client in clients:
            client.setblocking(False)
        seen = complaints()
        with no_fd_left():
            for client in clients:
                client.connect_ex(server.sockets[0].getsockname())
            await soon(lambda: bool(seen))
        assert [context["exception"].errno for context in seen] == [errno.EMFILE]
        assert seen[0]["message"] == "socket.accept() out of system resource"
        await soon(lambda: len(made) == len(clients))
        assert len(seen) <= 2
        for client in clients:
            client.close()
        await soon(lambda: all(each.lost() for each in made))
        server.close()
        await server.wait_closed()

    on("pyepoll", main)


def test_a_busy_listener_leaves_the_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sock_calls, "_ACCEPTS_PER_TURN", 3)
    accepted: list[int] = []

    class Counts(aio.EventLoop):
        def _accept_connection(self, *args: Any) -> None:
            before = len(self._ready)
            super()._accept_connection(*args)
            accepted.append(len(self._ready) - before)  # What makes their transports in the next turn.

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Plain] = []

        def protocol() -> Plain:
            made.append(Plain())
            return made[-1]

        server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=50)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(10)]
        await soon(lambda: len(made) == len(clients))
        for client in clients:
            client.close()
        await soon(lambda: all(each.lost() for each in made))
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=Counts) as runner:
        runner.run(main())
    assert sum(accepted) == 10
    assert max(accepted) == 3


def test_a_listener_without_a_backlog_accepts() -> None:
    """Before a fix in 3.14 asyncio accepts nothing then, and its loop spins."""

    async def main() -> None:
        made: list[Plain] = []

        def protocol() -> Plain:
            made.append(Plain())
            return made[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await soon(lambda: len(made) == 1)
        await soon(lambda: made[0].lost())
        server.close()
        await server.wait_closed()

    on("pyepoll", main)


def test_a_connection_that_comes_while_the_server_is_closed_is_closed() -> None:
    """asyncio leaves it to the collector, which warns, and so does an assertion of the server."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Plain, "127.0.0.1", 0)
        near, peer = socket.socketpair()
        with near, peer, socket.create_connection(server.sockets[0].getsockname()) as client:
            # In the turn in which the connection is accepted, after that; its transport is made in the next.
            loop.add_reader(near, server.close)
            peer.send(b"x")
            await soon(lambda: not server.is_serving())
            loop.remove_reader(near)
            client.setblocking(False)
            return await asyncio.wait_for(loop.sock_recv(client, 1), 20)

    assert on("pyepoll", main) == b""


def test_a_connection_without_a_protocol_is_closed() -> None:
    """asyncio leaves it to the collector, which warns."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()

        def protocol() -> Plain:
            raise ValueError("no protocol")

        server = await loop.create_server(protocol, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            answer = await asyncio.wait_for(loop.sock_recv(client, 1), 20)
        server.close()
        await server.wait_closed()
        return answer

    assert on("pyepoll", main) == b""
