"""Errors of a connection, and the callbacks that report them: as with asyncio's transport."""

import asyncio
import gc
import linecache
import signal
import socket
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import (
    Keeps,
    Plain,
    complaints,
    connection,
    error_text,
    logged,
    on,
    plain,
    receive,
    reset,
    same,
    small_buffers,
    soon,
    tcp_pair,
    turns,
)

METHODS = [
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
]
ERRORS = [
    ZeroDivisionError,
    OSError,
    ConnectionResetError,
    MemoryError,
    BlockingIOError,
    asyncio.CancelledError,
    StopIteration,
]
ENDS = [KeyboardInterrupt, SystemExit]


def failing(method: str, fail: Callable[[], object]) -> Plain:
    """A protocol with one method that fails."""

    class Fails(Plain):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name != method:
                return found

            def call(*args: Any) -> None:
                found(*args)
                fail()

            return call

    return Fails()


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


async def go_through(seen: Keeps, transport: Any, peer: socket.socket) -> None:
    """The steps that make every method of the protocol be called, as long as the connection is open."""
    peer.send(b"data")
    await turns(10)
    transport.set_write_buffer_limits(high=10)
    if not transport.is_closing():
        transport.write(bytes(1_000_000))
        if not transport.is_closing():
            await receive(peer, 1_000_000)
            await turns(10)
    if not transport.is_closing():
        peer.shutdown(socket.SHUT_WR)
    await turns(10)
    transport.close()
    await soon(lambda: transport.get_protocol() is None)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", METHODS)
def test_an_exception_in_a_callback_is_reported_as_by_asyncio(
    method: str, error: type[BaseException], debug: bool
) -> None:
    """The same context for the exception handler, and the same log."""

    async def scenario() -> list[Any]:
        complained = complaints()
        with logged() as log:
            async with connection(
                seen := failing(method, raising(error("on purpose"))), sock=small_buffers
            ) as (
                transport,
                peer,
            ):
                try:
                    await go_through(seen, transport, peer)
                except error as raised:  # By write(), which calls pause_writing().
                    complained.append({"raised": raised})
                said = [
                    {
                        name: error_text(value)
                        if isinstance(value, BaseException)
                        else plain(type(value).__name__)
                        for name, value in context.items()
                        if name not in ("message", "source_traceback")
                    }
                    | {"message": plain(context.get("message")).partition("<")[0]}
                    for context in complained
                ]
                return [said, seen.seen, log]

    said, seen, _ = same(scenario, debug=debug)
    assert seen[-1][0] == "lost"
    if method == "data_received" and not issubclass(error, OSError):
        assert said[0]["message"] == "Fatal error: protocol.data_received() call failed."
        assert set(said[0]) == {"message", "exception", "transport", "protocol"}


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("method", ["data_received", "eof_received"])
@pytest.mark.parametrize("name", ["asyncio", "pyepoll"])
def test_exceptions_that_end_the_program_leave_the_loop(
    name: str, method: str, error: type[BaseException]
) -> None:
    """It comes out of the loop, and the exception handler is not asked."""
    complained: list[Any] = []

    async def scenario() -> None:
        kept = complaints()
        async with connection(seen := failing(method, raising(error("on purpose")))) as (transport, peer):
            try:
                await go_through(seen, transport, peer)
            finally:
                complained.extend(kept)

    with pytest.raises(error, match="on purpose"):
        on(name, scenario)
    assert complained == []


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
def test_traceback_and_context_are_those_of_the_exception(method: str) -> None:
    """The traceback ends where it was raised, and the exception has the context that it was raised in."""

    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ZeroDivisionError("second")  # noqa: B904

    async def scenario() -> list[Any]:
        complained = complaints()
        async with connection(seen := failing(method, fail)) as (transport, peer):
            await go_through(seen, transport, peer)
        ((error, context),) = ((context["exception"], context) for context in complained)
        lines = [
            linecache.getline(frame.f_code.co_filename, line).strip()
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        assert len(lines) <= 4
        assert context["protocol"] is seen
        return [
            lines[-2:],
            error_text(error),
            error_text(error.__context__),
            error.__cause__,
            error.__context__.__context__,
        ]

    lines, *_ = same(scenario)
    assert lines == ["fail()", 'raise ZeroDivisionError("second")  # noqa: B904']


def test_a_failed_write_has_the_exceptions_context() -> None:
    """A write that fails while an exception is handled."""

    async def scenario() -> list[Any]:
        with logged(10) as log:
            async with connection(seen := Plain()) as (transport, peer):
                errors: list[Any] = []
                seen.connection_lost = errors.append  # type: ignore[assignment, method-assign]
                peer.close()
                try:
                    raise KeyError("handled")
                except KeyError:
                    transport.write(b"data")
                    during = error_text(sys.exc_info()[1])
                after = error_text(sys.exc_info()[1])
                await soon(lambda: bool(errors))
                return [during, after, error_text(errors[0]), error_text(errors[0].__context__), log[1:]]

    during, after, error, context, log = same(scenario, debug=True)
    assert (during, after) == ("KeyError: 'handled'", None)
    assert error == "BrokenPipeError: [Errno 32] Broken pipe"
    assert context == "KeyError: 'handled'"
    assert any("Fatal write error on socket transport (BrokenPipeError" in words for words in log)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_reset_is_reported_as_by_asyncio(kind: str, debug: bool) -> None:
    async def scenario() -> list[Any]:
        complained = complaints()
        with logged(10) as log:
            async with connection(seen := Plain(), tcp=True) as (transport, peer):
                if kind == "write":
                    transport.pause_reading()
                reset(peer)
                if kind == "write":
                    # The first is refused with the reset.
                    transport.write(b"1")
                    transport.write(b"2")
                await soon(seen.lost)
                return [seen.seen, complained, [words for words in log if "socket transport" in words]]

    seen, complained, log = same(scenario, debug=debug)
    assert seen == ["made", ("lost", "ConnectionResetError: [Errno 104] Connection reset by peer")]
    assert complained == []
    assert len(log) == debug
    assert all(f"Fatal {kind} error on socket transport (ConnectionResetError" in words for words in log)


@pytest.mark.parametrize("size", [1, 1_000_000])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_write_after_the_peer_has_gone_is_reported(tcp: bool, size: int) -> None:
    """EPIPE; on TCP when the reset has been reported already."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=tcp) as (transport, peer):
            transport.pause_reading()
            if tcp:
                reset(peer)
                with pytest.raises(ConnectionResetError):
                    transport._sock.recv(1)
            else:
                peer.close()
            assert transport.write(bytes(size)) is None
            states = [transport.is_closing(), transport._conn_lost, transport.get_write_buffer_size()]
            transport.write(b"again")
            await soon(seen.lost)
            return [states, seen.seen]

    assert same(scenario) == [[True, 1, 0], ["made", ("lost", "BrokenPipeError: [Errno 32] Broken pipe")]]


def test_an_error_while_data_is_kept_is_reported() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, peer):
            transport.write(bytes(1_000_000))
            peer.close()
            await soon(seen.lost)
            return [
                seen.seen[:-1],
                seen.seen[-1][1].split(":")[0] in ("BrokenPipeError", "ConnectionResetError"),
            ]

    assert same(scenario) == [["made", "pause"], True]


def test_sigpipe_is_sent_as_by_asyncio() -> None:
    """A program that handles SIGPIPE gets it, as often as with asyncio's."""

    async def scenario() -> int:
        count = 0

        def handler(number: int, frame: object) -> None:
            nonlocal count
            count += 1

        before = signal.signal(signal.SIGPIPE, handler)
        try:
            async with connection(seen := Plain()) as (transport, peer):
                transport.pause_reading()
                peer.close()
                transport.write(b"data")
                await soon(seen.lost)
        finally:
            signal.signal(signal.SIGPIPE, before)
        return count

    assert same(scenario) == 1


def data_received_fails(seen: Any, peer: socket.socket) -> None:
    peer.send(b"data")


def get_reset(seen: Any, peer: socket.socket) -> None:
    reset(peer)


def write_after_the_end(seen: Any, peer: socket.socket) -> None:
    seen.transport.pause_reading()
    peer.close()
    seen.transport.write(b"data")


@pytest.mark.parametrize("end", [data_received_fails, get_reset, write_after_the_end])
def test_a_lost_connection_leaves_no_cycle(end: Callable[[Any, socket.socket], None]) -> None:
    """Protocol and transport go when the connection has, without the collector."""

    class Fails(Plain):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            del self.transport

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        messages: list[Any] = []
        loop.set_exception_handler(lambda loop, context: messages.append(context["message"]))
        gc.collect()
        gc.disable()
        try:
            near, peer = socket.socketpair() if end is not get_reset else tcp_pair()
            seen: Any = Fails()
            await loop.create_connection(lambda: seen, sock=near)
            gone = weakref.ref(seen), weakref.ref(seen.transport), weakref.ref(near)
            end(seen, peer)
            del near
            await soon(seen.lost)
            words = seen.seen
            seen = None
            await turns()
            peer.close()
            return [words, messages, [reference() is None for reference in gone]]
        finally:
            gc.enable()

    # asyncio's transport may be left to the collector: before 3.14, it keeps a method of its own.
    ours = on("pyepoll", scenario)
    assert ours[:2] == on("asyncio", scenario)[:2]
    assert ours[2] == [True, True, True]


def test_a_missing_protocol_method_is_reported() -> None:
    class Deaf(asyncio.BaseProtocol):
        pass

    async def scenario() -> list[Any]:
        complained = complaints()
        async with connection(deaf := Deaf()) as (transport, peer):
            peer.send(b"data")
            await soon(lambda: transport.get_protocol() is None)
            assert complained[0]["protocol"] is deaf
            return [(context["message"], error_text(context["exception"])) for context in complained]

    assert same(scenario) == [
        (
            "Fatal error: protocol.data_received() call failed.",
            "AttributeError: 'Deaf' object has no attribute 'data_received'",
        )
    ]
