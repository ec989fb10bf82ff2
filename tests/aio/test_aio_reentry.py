"""Python code in the middle of a transport's call: of the socket, the buffer, the loop or a lookup."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Keeps, Plain, connection, soon, turns
from test_aio_gather import arrived, gathering

from pyepoll import aio

BIG = bytes(1 << 19)


class Calls(socket.socket):
    """Calls `act` in its first send()."""

    act: Callable[[], object] | None = None

    def send(self, *args: Any) -> int:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().send(*args)


def calling(sock: socket.socket) -> socket.socket:
    return Calls(fileno=sock.detach())


@pytest.mark.parametrize("gather", [True, False])
def test_a_write_in_send_follows_the_data(gather: bool) -> None:
    async def scenario() -> bytes:
        async with connection(Plain(), sock=calling) as (transport, peer):
            transport._sock.act = lambda: transport.write(b"second")
            transport.write(b"first ")
            await turns()
            return arrived(peer)

    assert gathering(scenario, gather=gather) == b"first second"


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("how", ["close", "write_eof"])
def test_an_end_in_send_comes_after_the_data(how: str, gather: bool) -> None:
    async def scenario() -> tuple[bytes, bool]:
        async with connection(seen := Plain(), sock=calling) as (transport, peer):
            transport._sock.act = getattr(transport, how)
            transport.write(b"data")
            if how == "close":
                await soon(seen.lost)
            await turns()
            data = peer.recv(100)
            return data, peer.recv(100) == b""

    assert gathering(scenario, gather=gather) == (b"data", True)


def test_an_abort_in_send_ends_once() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=calling) as (transport, _):
            transport._sock.act = transport.abort
            transport.writelines([b"data", b"more"])
            await soon(seen.lost)
            return seen.seen

    assert gathering(scenario) == ["made", ("lost", None)]


def test_what_a_nested_flush_leaves_is_sent() -> None:
    """A fork in pause_writing() flushes, and more is written after it."""

    async def scenario() -> list[bytes]:
        async with connection(Plain()) as (second, peer), connection(Plain()) as (third, other):
            loop: Any = asyncio.get_running_loop()

            class Forks(Plain):
                def pause_writing(self) -> None:
                    loop._pending_writes.flush()
                    second.write(b"second")
                    third.write(b"third")

            async with connection(Forks()) as (transport, _):
                transport.set_write_buffer_limits(high=1 << 20)
                transport.write(BIG)
                transport._high_water = 0
                await turns()
                return [arrived(peer), arrived(other)]

    assert gathering(scenario) == [b"second", b"third"]


def test_the_first_exception_of_a_flush_counts() -> None:
    async def scenario() -> None:
        async with connection(Plain(), sock=calling) as (transport, _):
            async with connection(Plain(), sock=calling) as (second, _):
                transport._sock.act = raising(KeyboardInterrupt)
                second._sock.act = raising(SystemExit)
                transport.write(b"data")
                second.write(b"data")
                await turns()

    with pytest.raises(KeyboardInterrupt):
        gathering(scenario)


def raising(error: type[BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("how", ["write", "close", "abort"])
def test_a_writer_that_cannot_be_added_ends_the_connection(how: str, gather: bool) -> None:
    """asyncio lets such data go: a later write would leave a gap."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, _):
            loop: Any = asyncio.get_running_loop()
            transport.set_write_buffer_limits(high=1 << 20)

            def refuse(*args: Any) -> None:
                raise OSError(28, "no space")

            loop._add_writer = refuse
            transport.write(BIG)
            if how != "write":
                getattr(transport, how)()
            await soon(seen.lost)
            del loop._add_writer
            return seen.seen

    assert gathering(scenario, gather=gather) == ["made", ("lost", "OSError: [Errno 28] no space")]


def replace_file(sock: socket.socket, other: socket.socket) -> None:
    """Close a socket, and let another file have its fd; only the first time."""
    fd = sock.fileno()
    if fd >= 0:
        sock.close()
        os.dup2(other.fileno(), fd)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes in Python have no buffers")
def test_a_buffer_that_closes_the_socket_gets_no_other_data() -> None:
    async def scenario() -> tuple[list[Any], bytes]:
        other, far = socket.socketpair()
        async with connection(seen := Lends()) as (transport, peer):
            fd = transport._sock.fileno()
            far.send(b"of another")
            seen.act = lambda: replace_file(transport._sock, other)
            peer.send(b"data")
            await soon(seen.lost)
            os.close(fd)
            with other, far:
                return seen.seen, other.recv(100)

    assert gathering(scenario) == (
        ["made", ("lost", "OSError: [Errno 9] Bad file descriptor")],
        b"of another",
    )


class Lends(Keeps, asyncio.BufferedProtocol):
    """Has a buffer of a class with code of its own."""

    act: Callable[[], object]

    def get_buffer(self, sizehint: int) -> Any:
        act = self.act

        class Buffer:
            def __len__(self) -> int:
                return 100

            def __buffer__(self, flags: int) -> memoryview:
                act()
                return memoryview(bytearray(100))

        return Buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.seen.append(nbytes)


class Unnamed(socket.socket):
    def getpeername(self) -> Any:
        raise RuntimeError("no name")


def test_a_transport_whose_init_failed_has_no_names() -> None:
    async def scenario() -> tuple[Any, Any]:
        near, peer = socket.socketpair()
        with peer, Unnamed(fileno=near.detach()) as sock:
            transport: Any = aio.SocketTransport.__new__(aio.SocketTransport)
            with pytest.raises(RuntimeError, match="no name"):
                transport.__init__(asyncio.get_running_loop(), sock, Plain())
            transport._sock = None  # Otherwise it warns that it was not closed.
            return transport._extra, transport.get_extra_info("peername")

    assert gathering(scenario) == ({}, None)


def test_a_name_that_replaces_the_names_is_looked_up_in_the_old_ones() -> None:
    async def scenario() -> Any:
        async with connection(Plain()) as (transport, _):

            class Name:
                def __hash__(self) -> int:
                    return hash("key")

                def __eq__(self, other: object) -> bool:
                    transport._extra = {}
                    return True

            transport._extra = {"key": ["value"]}
            return transport.get_extra_info(Name())

    assert gathering(scenario) == ["value"]
