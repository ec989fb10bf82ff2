"""A socket with methods of its own, one that is closed under its transport, an unrelated one with its fd."""

import asyncio
import contextlib
import fcntl
import gc
import os
import socket
import warnings
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from support.loops import (
    Buffered,
    Keeps,
    Plain,
    complaints,
    connection,
    error_text,
    on,
    plain,
    receive,
    same,
    soon,
    turns,
)

from pyepoll import aio


class Own(socket.socket):
    """The transport must call its methods."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[Any] = []

    @classmethod
    def of(cls, sock: socket.socket) -> "Own":
        return cls(sock.family, sock.type, sock.proto, fileno=sock.detach())

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self.calls.append(("recv", data))
        return data.upper()

    def recv_into(self, buffer: Any, *args: Any) -> int:
        count = super().recv_into(buffer, *args)
        self.calls.append(("recv_into", count))
        return count

    def send(self, data: Any, *args: Any) -> int:
        self.calls.append(("send", bytes(data)))
        return super().send(data[:3], *args)


@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("accepted", [False, True])
def test_methods_of_a_socket_subclass_are_used(kind: type[Keeps], accepted: bool) -> None:
    async def scenario() -> list[Any]:
        near, peer = socket.socketpair()
        own = Own.of(near)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        seen = kind()
        if accepted:
            own.setblocking(False)
            transport, _ = await loop.connect_accepted_socket(lambda: seen, own)
        else:
            transport, _ = await loop.create_connection(lambda: seen, sock=own)
        transport.write(b"abcdef")
        got = await receive(peer, 6)
        peer.send(b"data")
        await soon(lambda: seen.has(4))
        peer.close()
        await soon(seen.lost)
        return [got, own.calls, seen.seen]

    got, calls, seen = same(scenario)
    assert got == b"abcdef"
    assert calls[0] == ("send", b"abcdef")
    assert ("recv_into", 4) in calls or ("recv", b"data") in calls
    assert seen[1] == (b"DATA" if kind is Plain else b"data")


def test_a_socket_that_changes_its_class_uses_its_methods() -> None:
    """From one of socket's own to one with methods: from then on they are called."""

    class Later(socket.socket):
        __slots__ = ()

        def recv(self, *args: Any) -> bytes:
            return super().recv(*args).upper()

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            peer.send(b"first")
            await soon(lambda: seen.has(5))
            transport._sock.__class__ = Later
            peer.send(b"then")
            await soon(lambda: seen.has(9))
            return seen.seen

    assert same(scenario) == ["made", b"firstTHEN", ("lost", None)]


def test_a_blocking_socket_does_not_block_reads() -> None:
    """asyncio takes an accepted socket as it is. One that blocks does not block our reads."""

    async def scenario() -> list[Any]:
        near, peer = socket.socketpair()
        near.setblocking(True)
        seen = Plain()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: seen, near)
        peer.send(b"data")
        await soon(lambda: seen.has(4))
        transport.write(b"answer")
        got = peer.recv(6)
        peer.close()
        await soon(seen.lost)
        return [got, seen.seen]

    assert same(scenario) == [b"answer", ["made", b"data", "eof", ("lost", None)]]


CLOSINGS: dict[str, Callable[[socket.socket], object]] = {
    "close": lambda sock: sock.close(),
    "detach": lambda sock: os.close(sock.detach()),
}


@contextlib.contextmanager
def unrelated(number: int) -> Any:
    """Another connection with one end that has this fd, and has data to read."""
    pair = socket.socketpair()
    # First out of the way: one of them may have got the fd.
    high = [fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 700) for end in pair]
    for end in pair:
        end.close()
    os.dup2(high[0], number)
    os.close(high[0])
    with socket.socket(fileno=number) as a, socket.socket(fileno=high[1]) as b:
        b.send(b"private")
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def untouched(a: socket.socket, b: socket.socket) -> bool:
    """Whether no byte was read from one end of the unrelated connection, or written to it."""
    assert a.recv(100) == b"private"
    with pytest.raises(BlockingIOError):
        b.recv(1)
    return True


@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_socket_closed_under_its_transport_touches_no_unrelated_fd(closing: str, kind: type[Keeps]) -> None:
    """The fd is an unrelated file: no byte is read from it or written to it."""

    async def scenario() -> list[Any]:
        complained = complaints()
        near, peer = socket.socketpair()
        seen = kind()
        loop = asyncio.get_running_loop()
        transport: Any = (await loop.create_connection(lambda: seen, sock=near))[0]
        number = near.fileno()
        CLOSINGS[closing](near)
        with peer, unrelated(number) as (a, b):
            transport.write(b"for the peer")
            states = [transport.is_closing()]
            transport.write(b"again")
            transport._read_ready()
            await turns()
            assert untouched(a, b)
            # asyncio's closing takes the fd for its own.
            return [states, seen.seen, [error_text(context.get("exception")) for context in complained]]

    states, seen, _ = same(scenario)
    assert states == [True]
    assert seen == ["made", ("lost", "OSError: [Errno 9] Bad file descriptor")]


@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_socket_closed_before_its_callback_is_not_read(closing: str, kind: type[Keeps]) -> None:
    """Between the event and its callback."""

    async def scenario() -> list[Any]:
        near, peer = socket.socketpair()
        seen = kind()
        loop: Any = asyncio.get_running_loop()
        transport: Any = (await loop.create_connection(lambda: seen, sock=near))[0]
        number = near.fileno()
        with contextlib.ExitStack() as stack:
            stack.enter_context(peer)
            others: list[Any] = []
            real = loop._process_events

            def process(events: Any) -> None:
                if not others and any(key.fd == number for key, _ in events):
                    CLOSINGS[closing](near)
                    others.append(stack.enter_context(unrelated(number)))
                real(events)

            loop._process_events = process
            peer.send(b"data")
            await soon(seen.lost)
            assert untouched(*others[0])
            return [seen.seen, transport.get_protocol()]

    assert same(scenario) == [["made", ("lost", "OSError: [Errno 9] Bad file descriptor")], None]


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_socket_closed_in_get_buffer_is_not_read(closing: str) -> None:
    """Python code runs between the event and the receiving."""
    near: Any = None
    others: list[Any] = []
    stack = contextlib.ExitStack()

    class Closes(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            number = near.fileno()
            CLOSINGS[closing](near)
            others.append(stack.enter_context(unrelated(number)))
            return self.buffer

    async def scenario() -> list[Any]:
        nonlocal near
        near, peer = socket.socketpair()
        seen = Closes()
        others.clear()
        await asyncio.get_running_loop().create_connection(lambda: seen, sock=near)
        with peer, stack:
            peer.send(b"data")
            await soon(seen.lost)
            assert untouched(*others[0])
        return seen.seen

    assert same(scenario) == ["made", ("lost", "OSError: [Errno 9] Bad file descriptor")]


def test_a_socket_closed_while_its_file_is_open_is_read() -> None:
    """The socket object is closed, but not its fd, as long as the file is open: data is read."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (transport, peer):
            file = transport._sock.makefile("rb")
            transport._sock.close()
            peer.send(b"data")
            await soon(lambda: seen.has(4))
            transport.write(b"answer")
            got = await receive(peer, 6)
            transport.close()
            await soon(seen.lost)
            file.close()
            return [got, seen.seen]

    assert same(scenario) == [b"answer", ["made", b"data", ("lost", None)]]


def test_an_unclosed_transport_warns() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        transport: Any = (await loop.create_connection(Plain, sock=near))[0]
        del near
        gone = weakref.ref(transport)
        loop._remove_reader(transport._sock_fd)  # type: ignore[attr-defined]
        transport.get_protocol().transport = None
        with warnings.catch_warnings(record=True) as caught, peer:
            warnings.simplefilter("always")
            del transport
            gc.collect()
            warned = [plain(warning.message) for warning in caught]
            caught.clear()  # The warning's source is the transport.
            gc.collect()
            # Whether its socket warns as well depends on the order of the collector.
            return [gone() is None, [words for words in warned if "transport" in words], peer.recv(1)]

    gone, warned, end = same(scenario)
    assert gone
    assert warned == ["unclosed transport <SocketTransport fd=N read=idle write=<idle, bufsize=0>>"]
    assert end == b""


def test_a_transport_made_without_init_does_not_crash(recwarn: pytest.WarningsRecorder) -> None:
    """No crash, and no noise when it goes."""
    transport: Any = aio.SocketTransport.__new__(aio.SocketTransport)
    for name in dir(transport):
        if not name.startswith("__"):
            with contextlib.suppress(AttributeError, TypeError, NotImplementedError):
                getattr(transport, name)()
    transport.write(b"data")
    transport.set_protocol(Plain())
    transport._fatal_error(ZeroDivisionError(), "message")
    transport._force_close(None)
    assert transport.is_closing()
    assert "SocketTransport" in str(transport)
    with pytest.raises(TypeError):
        transport.write("data")
    transport = None
    gc.collect()
    assert not recwarn.list


@pytest.mark.parametrize(
    "name",
    [
        *("_empty_waiter", "_extra", "_high_water", "_loop", "_low_water", "_protocol_paused"),
        *("_server", "_sock", "max_size"),
    ],
)
@pytest.mark.parametrize("value", [None, -1, "text", 1 << 100, "deleted"])
def test_inconsistent_private_state_does_not_crash(name: str, value: Any) -> None:
    """Changing private state may raise any exception, but must not crash."""

    async def scenario() -> None:
        complaints()
        async with connection(Plain()) as (transport, peer):
            peer.send(b"data")
            before = getattr(transport, name)
            with contextlib.suppress(TypeError, OverflowError):
                if value == "deleted":
                    delattr(transport, name)
                else:
                    setattr(transport, name, value)
            for call in (
                lambda: transport.write(b"1"),
                lambda: transport.write(bytearray(b"2")),
                transport._read_ready,
                transport.pause_reading,
                transport.resume_reading,
                lambda: transport.write(bytes(1_000_000)),
                transport._write_ready,
                transport.get_write_buffer_size,
                lambda: transport.get_extra_info("socket"),
                transport._make_empty_waiter,
                lambda: str(transport),
                lambda: transport._fatal_error(ZeroDivisionError()),
                transport.abort,
                transport.close,
            ):
                with contextlib.suppress(Exception):
                    call()
            setattr(transport, name, before)

    aio.run(scenario())


def test_an_fd_in_use_is_refused() -> None:
    """Refused as by asyncio's loop: up to 3.11 it makes a second transport."""

    async def scenario() -> list[Any]:
        async with connection(Plain(), tcp=True) as (transport, _):
            loop: Any = asyncio.get_running_loop()
            said = []
            calls: list[Callable[[], object]] = [
                lambda: loop.add_reader(transport._sock_fd, print),
                lambda: loop.add_writer(transport._sock_fd, print),
                lambda: loop._make_socket_transport(transport._sock, Plain()).abort(),
            ]
            for call in calls:
                try:
                    call()
                    said.append("fine")
                except RuntimeError as error:
                    said.append(plain(error).partition(" is used by")[1])
            return said

    assert same(scenario)[:2] == [" is used by"] * 2


def test_a_mock_can_be_the_socket() -> None:
    """CPython's own tests make such transports: an attribute may be anything, and fileno() no open fd."""

    async def scenario() -> list[Any]:
        complained = complaints()
        sock = mock.Mock()
        sock.fileno.return_value = 12345
        sock.send.side_effect = BrokenPipeError
        seen = Plain()
        loop: Any = asyncio.get_running_loop()
        transport = loop._make_socket_transport(sock, seen)
        await turns()
        transport.write(b"data")
        await turns()
        return [seen.seen, transport._sock, [context["exception"].errno for context in complained]]

    seen, sock, _ = same(scenario)
    assert seen == ["made", ("lost", "BrokenPipeError: ")]
    assert sock is None


def test_read_ready_cb_is_none_once_the_transport_reads_no_more() -> None:
    async def scenario() -> None:
        async with connection(Plain()) as (transport, _):
            assert transport._read_ready_cb == transport._read_ready
            transport.close()
            assert transport._read_ready_cb is None
            await turns()
            assert transport._read_ready_cb is None

    on("pyepoll", scenario)
