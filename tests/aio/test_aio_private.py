"""The private parts of asyncio that pyepoll.aio relies on: each exists, and has the expected meaning.

A failure here with a new CPython names the change; docs/asyncio.md explains the use of each.
"""

import asyncio
import asyncio.selector_events
import asyncio.unix_events
import contextvars
import inspect
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Buffered, Plain, connection, on, receive, receive_all, small_buffers, soon

from pyepoll import aio

STOCK: Any = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
MUCH = bytes(1_000_000)


def changed(what: str) -> str:
    return f"asyncio has changed {what}: see docs/asyncio.md for its use in csrc/aio and pyepoll/aio.py"


def watched(check: Any, **options: Any) -> None:
    """Check asyncio's own transport in a loop of asyncio's."""

    async def scenario() -> None:
        async with connection(seen := Plain(), **options) as (transport, peer):
            assert type(transport) is STOCK, changed("the class of its transports")
            await check(transport, seen, peer)

    on("asyncio", scenario)


async def is_the_socket(transport: Any, seen: Plain, peer: socket.socket) -> None:
    assert type(transport._sock) is socket.socket
    assert transport._sock_fd == transport._sock.fileno()
    transport.close()
    await soon(seen.lost)
    assert transport._sock is None


async def is_the_protocol(transport: Any, seen: Plain, peer: socket.socket) -> None:
    assert transport._protocol is seen
    transport.set_protocol(other := Plain())
    assert transport._protocol is other
    transport.close()
    await soon(other.lost)
    assert transport._protocol is None


async def is_the_kind_of_reading(transport: Any, seen: Plain, peer: socket.socket) -> None:
    def is_method(name: str) -> bool:
        method = transport._read_ready_cb
        return method.__self__ is transport and method.__func__ is getattr(STOCK, name)

    assert is_method("_read_ready__data_received")
    transport.set_protocol(Buffered())
    assert is_method("_read_ready__get_buffer")
    transport.set_protocol(seen)
    assert is_method("_read_ready__data_received")


async def counts_from_the_loss(transport: Any, seen: Plain, peer: socket.socket) -> None:
    assert type(transport._conn_lost) is int
    assert transport._conn_lost == 0
    transport.close()
    assert transport._conn_lost > 0


async def is_zero_while_data_is_kept(transport: Any, seen: Plain, peer: socket.socket) -> None:
    transport.write(MUCH)
    transport.close()
    assert transport._conn_lost == 0
    await receive_all(peer)


async def tells_of_write_eof(transport: Any, seen: Plain, peer: socket.socket) -> None:
    before = transport._eof
    transport.write_eof()
    assert (before, transport._eof) == (False, True)
    assert {type(before), type(transport._eof)} == {bool}


async def tells_of_sendfile(transport: Any, seen: Plain, peer: socket.socket) -> None:
    before = transport._empty_waiter
    transport._make_empty_waiter()
    assert [before is None, transport._empty_waiter is None] == [True, False]
    with pytest.raises(RuntimeError, match="sendfile"):
        transport.write(b"data")
    transport._reset_empty_waiter()
    assert transport._empty_waiter is None


async def keeps_what_was_not_sent(transport: Any, seen: Plain, peer: socket.socket) -> None:
    assert len(transport._buffer) == 0
    transport.write(b"data")
    assert len(transport._buffer) == 0
    transport.write(MUCH)
    assert len(transport._buffer) > 0
    await receive_all_but_the_end(peer, len(MUCH) + 4)
    await soon(lambda: len(transport._buffer) == 0)


async def receive_all_but_the_end(peer: socket.socket, size: int) -> None:
    assert len(await receive(peer, size)) == size


async def is_called_at_the_end(transport: Any, seen: Plain, peer: socket.socket) -> None:
    transport._read_ready__on_eof()
    assert seen.seen[-1] == "eof"
    assert transport.is_closing()


async def ends_the_connection(transport: Any, seen: Plain, peer: socket.socket) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    error = ZeroDivisionError()
    transport._fatal_error(error, "a message")
    assert reported == [
        {"message": "a message", "exception": error, "transport": transport, "protocol": seen}
    ]
    assert transport._conn_lost > 0
    await soon(seen.lost)


async def is_what_the_selector_has(transport: Any, seen: Plain, peer: socket.socket) -> None:
    loop: Any = asyncio.get_running_loop()
    reader: Any
    reader, writer = loop._selector.get_key(transport._sock_fd).data
    assert writer is None
    assert reader._callback == transport._read_ready
    before = reader._cancelled
    reader.cancel()
    assert [before, reader._cancelled] == [False, True]
    assert type(reader) is asyncio.Handle


TRANSPORT: dict[str, tuple[Callable[..., Any], bool]] = {
    "_sock and _sock_fd": (is_the_socket, False),
    "_protocol": (is_the_protocol, False),
    "_read_ready_cb": (is_the_kind_of_reading, False),
    "_conn_lost": (counts_from_the_loss, False),
    "_conn_lost while closing": (is_zero_while_data_is_kept, True),
    "_eof": (tells_of_write_eof, False),
    "_empty_waiter": (tells_of_sendfile, False),
    "_buffer": (keeps_what_was_not_sent, True),
    "_read_ready__on_eof": (is_called_at_the_end, False),
    "_fatal_error": (ends_the_connection, False),
    "the handles in the selector": (is_what_the_selector_has, False),
}


@pytest.mark.parametrize("what", TRANSPORT)
def test_the_transport_has_the_parts_we_use(what: str) -> None:
    check, small = TRANSPORT[what]
    try:
        watched(check, sock=small_buffers if small else None)
    except (AssertionError, AttributeError) as error:
        raise AssertionError(changed(f"a transport's {what}")) from error


def parameters(function: Any) -> list[tuple[str, Any]]:
    return [(name, parameter.kind) for name, parameter in inspect.signature(function).parameters.items()]


PIPES: Any = asyncio.unix_events

CONTEXT = ["context"] if sys.version_info >= (3, 15) else []
"""CPython 3.15 has added the context of a connection, which ours passes on to stock's transport."""

SIGNATURES = {
    "_SelectorSocketTransport": (STOCK, ["loop", "sock", "protocol", "waiter", "extra", "server", *CONTEXT]),
    "_read_ready": (STOCK._read_ready, ["self"]),
    "_read_ready__data_received": (STOCK._read_ready__data_received, ["self"]),
    "_read_ready__get_buffer": (STOCK._read_ready__get_buffer, ["self"]),
    "_read_ready__on_eof": (STOCK._read_ready__on_eof, ["self"]),
    "_fatal_error": (STOCK._fatal_error, ["self", "exc", "message"]),
    "write": (STOCK.write, ["self", "data"]),
    "_ensure_fd_no_transport": (asyncio.SelectorEventLoop._ensure_fd_no_transport, ["self", "fd"]),  # type: ignore[attr-defined]
    "_add_reader": (asyncio.SelectorEventLoop._add_reader, ["self", "fd", "callback", "args", *CONTEXT]),  # type: ignore[attr-defined]
    "_add_writer": (asyncio.SelectorEventLoop._add_writer, ["self", "fd", "callback", "args", *CONTEXT]),  # type: ignore[attr-defined]
    "_sock_connect_cb": (asyncio.SelectorEventLoop._sock_connect_cb, ["self", "fut", "sock", "address"]),  # type: ignore[attr-defined]
    "_UnixReadPipeTransport": (PIPES._UnixReadPipeTransport, ["loop", "pipe", "protocol", "waiter", "extra"]),
    "_UnixWritePipeTransport": (
        PIPES._UnixWritePipeTransport,
        ["loop", "pipe", "protocol", "waiter", "extra"],
    ),
    "_fatal_error of pipes": (PIPES._UnixReadPipeTransport._fatal_error, ["self", "exc", "message"]),
    "_child_watcher_callback": (
        PIPES._UnixSelectorEventLoop._child_watcher_callback,
        ["self", "pid", "returncode", "transp"],
    ),
    "_make_self_pipe": (asyncio.SelectorEventLoop._make_self_pipe, ["self"]),  # type: ignore[attr-defined]
    "_close_self_pipe": (asyncio.SelectorEventLoop._close_self_pipe, ["self"]),  # type: ignore[attr-defined]
    "_process_events": (asyncio.SelectorEventLoop._process_events, ["self", "event_list"]),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_of_private_functions_are_unchanged(name: str) -> None:
    function, names = SIGNATURES[name]
    assert [name for name, _ in parameters(function)] == names, changed(f"the arguments of {name}")


def test_the_factory_of_transports_has_the_expected_arguments() -> None:
    """Ours takes the same arguments, and context= on every version."""
    stock: Any = asyncio.SelectorEventLoop
    ours: Any = aio.EventLoop
    named = parameters(ours._make_socket_transport)
    assert named.pop() == ("context", inspect.Parameter.KEYWORD_ONLY)
    named += [(name, inspect.Parameter.KEYWORD_ONLY) for name in CONTEXT]
    theirs = parameters(stock._make_socket_transport)
    assert theirs == named, changed("the arguments of _make_socket_transport")


def test_the_factory_of_tls_has_the_expected_arguments() -> None:
    """Ours takes the same arguments, and context= on every version."""
    stock: Any = asyncio.selector_events.BaseSelectorEventLoop
    theirs = inspect.signature(stock._make_ssl_transport).parameters
    ours = inspect.signature(aio.EventLoop._make_ssl_transport).parameters
    sslproto = pytest.importorskip("asyncio.sslproto", exc_type=ImportError)
    accepted = list(inspect.signature(sslproto.SSLProtocol).parameters)
    assert ours.keys() - {"context"} == theirs.keys() - {"context"}, changed("the arguments of TLS")
    assert {"ssl_handshake_timeout", "ssl_shutdown_timeout"} <= set(accepted), changed("the timeouts of TLS")
    assert accepted[:6] == [
        *("loop", "app_protocol", "sslcontext", "waiter"),
        *("server_side", "server_hostname"),
    ], changed("the arguments of SSLProtocol")


def test_the_size_of_a_read_is_asyncios() -> None:
    assert STOCK.max_size == 256 * 1024, changed(
        "how much it asks for: MAX_SIZE in csrc/aio/stream/transport.c"
    )


def test_handles_of_events_are_queued_in_order() -> None:
    """_process_events() puts the handles of events in line in `_ready`, those for reading first.

    Ours puts one there that runs them.
    """

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        a, b = socket.socketpair()
        ran: list[str] = []
        with a, b:
            b.send(b"data")
            loop.add_reader(a, ran.append, "reader")
            loop.add_writer(a, ran.append, "writer")
            key = loop._selector.get_key(a)
            before = len(loop._ready)
            loop._process_events([(key, 3)])
            put = [loop._ready.pop() for _ in range(len(loop._ready) - before)][::-1]
            if type(loop) is asyncio.SelectorEventLoop:
                assert put == list(key.data), changed("_ready or _process_events()")
            assert not any(handle._cancelled for handle in put)
            for handle in put:
                handle._run()
            assert ran == ["reader", "writer"], changed("the use of _ready")
            key.data[0].cancel()
            loop._process_events([(key, 1)])
            assert loop._selector.get_key(a).events == 2, changed("its treatment of a cancelled handle")
            loop.remove_writer(a)

    for name in "asyncio", "pyepoll":
        on(name, scenario)


def test_a_handle_runs_its_callback_in_its_context() -> None:
    """A handle's `_run()` calls its `_callback` in its `_context`, unless it is `_cancelled`."""
    for name in "_callback", "_cancelled", "_context":
        assert inspect.ismemberdescriptor(asyncio.Handle.__dict__[name]), changed(f"Handle.{name}")
    loop = asyncio.new_event_loop()
    context = contextvars.copy_context()
    variable = contextvars.ContextVar("variable", default=0)
    handle: Any = asyncio.Handle(callback := lambda: variable.set(1), (), loop, context)
    assert (handle._callback, handle._cancelled, handle._context) == (callback, False, context)
    assert handle._run() is None
    assert context[variable] == 1
    handle.cancel()
    assert handle._cancelled is True
    loop.close()


def test_the_sockets_closed_flag_is_a_slot() -> None:
    """`_closed` has a slot, and is set by whatever takes the fd from a socket."""
    member: Any = socket.socket._closed  # type: ignore[attr-defined]
    assert inspect.ismemberdescriptor(member), changed("socket.socket._closed")
    ends: list[Any] = list(socket.socketpair())
    assert [end._closed for end in ends] == [False, False], changed("socket.socket._closed")
    ends[0].close()
    ends.append(socket.socket(fileno=ends[1].detach()))
    assert [end._closed for end in ends] == [True, True, False], changed("socket.socket._closed")
    with pytest.raises(AttributeError):
        ends[2].recv = None  # It has no state but its slots, so no methods of its own.
    ends[2].close()


def test_the_transports_of_pipes_have_the_parts_we_use() -> None:
    """C looks at these attributes, and leaves the rest to asyncio if one has another kind of value."""

    async def scenario() -> list[Any]:
        loop, protocol = asyncio.get_running_loop(), asyncio.Protocol()
        read, write = os.pipe()
        reader: Any = (await loop.connect_read_pipe(lambda: protocol, open(read, "rb", 0)))[0]
        writer: Any = (await loop.connect_write_pipe(lambda: protocol, open(write, "wb", 0)))[0]
        found = [
            (reader._fileno, reader._protocol, reader._closing, type(reader.max_size)),
            (writer._fileno, writer._buffer, writer._closing, writer._conn_lost),
        ]
        for transport in reader, writer:
            transport.close()
            found.append(transport._closing)
        await soon(lambda: writer._protocol is None)
        assert found == [(read, protocol, False, int), (write, bytearray(), False, 0), True, True]
        assert (reader._protocol, reader._loop, writer._loop) == (None, None, None)
        return []

    for name in "asyncio", "pyepoll":
        try:
            on(name, scenario)
        except (AssertionError, AttributeError) as error:
            raise AssertionError(changed("the attributes of its pipe transports")) from error


def test_the_base_of_our_transport_has_the_expected_slots() -> None:
    """Its C struct begins with them; another layout makes the import of pyepoll.aio fail."""
    transports: Any = asyncio.transports
    mixin = transports._FlowControlMixin
    slots = [*transports.BaseTransport.__slots__, *mixin.__slots__]
    assert sorted(slots) == ["_extra", "_high_water", "_loop", "_low_water", "_protocol_paused"], changed(
        "the slots of its transports"
    )
    assert "__dict__" not in dir(mixin), changed("its transports")
