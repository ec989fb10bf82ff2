"""Each connection keeps the context in which it was made: the next request sees no variables of the last."""

import asyncio
import contextvars
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.faults import Side, closing, sides
from support.loops import Buffered, Keeps, Plain, receive, small_buffers, soon, turns

user = contextvars.ContextVar("user", default="nobody")
MUCH = bytes(1_000_000)


def noting(kind: type[Keeps], users: list[tuple[str, str]]) -> Keeps:
    """A protocol that notes the user at each call."""

    class Notes(kind):  # type: ignore[valid-type, misc]
        def keep(self, data: bytes) -> None:
            users.append(("data", user.get()))
            super().keep(data)

        def resume_writing(self) -> None:
            users.append(("resume", user.get()))

        def eof_received(self) -> bool | None:
            users.append(("eof", user.get()))
            return None

        def connection_lost(self, exc: Exception | None) -> None:
            users.append(("lost", user.get()))
            super().connection_lost(exc)

    made: Keeps = Notes()
    return made


def users_after(side: Side, kind: type[Keeps], act: Callable[[Any], object], sent: bytes) -> list[Any]:
    """The users that a protocol sees after a task of alice's has done something to its transport."""

    async def scenario() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        peer.setblocking(False)
        users: list[tuple[str, str]] = []
        protocol = noting(kind, users)
        user.set("owner")
        transport, _ = await loop.create_connection(lambda: protocol, sock=small_buffers(near))
        user.set("nobody")
        await turns()

        async def request() -> None:
            user.set("alice")
            act(transport)

        with closing(peer):
            await asyncio.create_task(request())
            await receive(peer, len(sent))
            await turns()
            peer.send(b"next")
            await soon(lambda: protocol.has(4))
            peer.shutdown(socket.SHUT_WR)
            await soon(protocol.lost)
        return users

    return side.run(scenario)


def pause_and_resume(transport: Any) -> None:
    transport.pause_reading()
    transport.resume_reading()


@sides("resume_reading: context of a task")
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_resume_reading_keeps_the_context_of_the_connection(side: Side, kind: type[Keeps]) -> None:
    users = users_after(side, kind, pause_and_resume, b"")
    assert dict(users)["data"] == "owner"
    assert dict(users)["eof"] == "owner"


@sides("resume_reading: context of a task")
def test_a_stream_reads_in_the_context_of_the_connection(side: Side) -> None:
    """StreamReader pauses and resumes its transport itself, in the task that reads."""
    users: list[str] = []

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            users.append(user.get())
            super().data_received(data)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        with closing(peer):
            reader = asyncio.StreamReader(limit=100)
            transport, _ = await loop.create_connection(lambda: Protocol(reader), sock=near)
            peer.send(bytes(1000))
            await soon(lambda: len(users) == 1)

            async def request() -> None:
                user.set("alice")
                await reader.readexactly(1000)

            await asyncio.create_task(request())
            peer.send(b"next")
            await soon(lambda: len(users) == 2)
            transport.close()
            await turns()

    side.run(scenario)
    assert users == ["nobody", "nobody"]


@sides("resume_writing: context of a task")
def test_resume_writing_runs_in_the_context_of_the_connection(side: Side) -> None:
    """A task has written more than the socket took."""
    users = users_after(side, Plain, lambda transport: transport.write(MUCH), MUCH)
    assert dict(users)["resume"] == "owner"


@sides("connection_lost: context of a task")
def test_connection_lost_runs_in_the_context_of_the_connection(side: Side) -> None:
    """A task has closed it."""

    async def scenario() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        users: list[tuple[str, str]] = []
        protocol = noting(Plain, users)
        with closing(peer):
            transport, _ = await loop.create_connection(lambda: protocol, sock=near)

            async def request() -> None:
                user.set("alice")
                transport.close()

            await asyncio.create_task(request())
            await soon(protocol.lost)
        return users

    assert side.run(scenario) == [("lost", "nobody")]


async def end_of_pipe(protocol: Keeps, reads: bool) -> tuple[Any, int]:
    """The transport of one end of a pipe, made by the user "owner", and the fd of the other end."""
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    user.set("owner")
    if reads:
        transport: Any = (await loop.connect_read_pipe(lambda: protocol, open(reader, "rb", 0)))[0]
    else:
        transport = (await loop.connect_write_pipe(lambda: protocol, open(writer, "wb", 0)))[0]
    user.set("nobody")
    await turns()
    return transport, writer if reads else reader


async def as_alice(act: Callable[[], object]) -> None:
    """Do something in a task of alice's."""

    async def request() -> None:
        user.set("alice")
        act()

    await asyncio.create_task(request())


@sides("pipe: resume_reading: context of a task")
def test_resume_reading_of_a_pipe_keeps_its_context(side: Side) -> None:
    users: list[tuple[str, str]] = []

    async def scenario() -> None:
        protocol = noting(Plain, users)
        transport, fd = await end_of_pipe(protocol, reads=True)
        with open(fd, "wb", 0) as other:
            await as_alice(lambda: pause_and_resume(transport))
            other.write(b"next")
        await soon(protocol.lost)

    side.run(scenario)
    assert users == [("data", "owner"), ("eof", "owner"), ("lost", "owner")]


@sides("pipe: resume_writing: context of a task")
def test_resume_writing_of_a_pipe_runs_in_its_context(side: Side) -> None:
    """A task has written more than the pipe took."""
    users: list[tuple[str, str]] = []

    async def scenario() -> None:
        protocol = noting(Plain, users)
        transport, fd = await end_of_pipe(protocol, reads=False)
        os.set_blocking(fd, False)
        with open(fd, "rb", 0) as other:
            await as_alice(lambda: transport.write(MUCH))
            await soon(lambda: other.read(len(MUCH)) is None and len(users) > 0)
        await soon(protocol.lost)

    side.run(scenario)
    assert users[0] == ("resume", "owner")


@sides("pipe: connection_lost: context of a task")
@pytest.mark.parametrize(
    ("reads", "method"), [(True, "close"), (False, "close"), (False, "abort"), (False, "write_eof")]
)
def test_connection_lost_of_a_pipe_runs_in_its_context(side: Side, reads: bool, method: str) -> None:
    users: list[tuple[str, str]] = []

    async def scenario() -> None:
        protocol = noting(Plain, users)
        transport, fd = await end_of_pipe(protocol, reads)
        with open(fd, "wb" if reads else "rb", 0):
            await as_alice(getattr(transport, method))
            await soon(protocol.lost)

    side.run(scenario)
    assert users == [("lost", "owner")]


@sides("accept: one context for all")
def test_accepted_connections_have_contexts_of_their_own(side: Side) -> None:
    """The next connection does not see the variables of the last."""
    users: list[str] = []

    class Sets(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            users.append(user.get())
            user.set("alice")
            transport.close()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server: Any = await loop.create_server(Sets, "127.0.0.1", 0)
        for number in range(3):
            with socket.create_connection(server.sockets[0].getsockname()):
                await soon(lambda number=number: len(users) > number)  # type: ignore[misc]
        server.close()
        await server.wait_closed()
        await turns()

    side.run(scenario)
    assert users == ["nobody"] * 3
