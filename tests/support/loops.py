"""asyncio's own loop beside ours: one scenario on both, and protocols that record their calls."""

import asyncio
import contextlib
import logging
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from pyepoll import aio

T = TypeVar("T")
Scenario = Callable[[], Coroutine[Any, Any, T]]

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    # Sends in write(), as asyncio does: the same scenario may then read the peer's end in the same turn.
    "pyepoll": lambda: aio.new_event_loop(gather_writes=False),
}


def on(name: str, scenario: Scenario[T], *, debug: bool | None = None) -> T:
    with asyncio.Runner(debug=debug, loop_factory=FACTORIES[name]) as runner:
        # The duration of a callback is not compared.
        runner.get_loop().slow_callback_duration = 1000
        return runner.run(scenario())


def same(scenario: Scenario[T], *, debug: bool | None = None) -> T:
    """The result of a scenario on our loop; on asyncio's it must be the same."""
    theirs = on("asyncio", scenario, debug=debug)
    ours = on("pyepoll", scenario, debug=debug)
    assert ours == theirs, f"{str(ours)[:1000]}\nwhere asyncio has\n{str(theirs)[:1000]}"
    return ours


def plain(text: object) -> str:
    """A text without the numbers, and the class, that are not the same from one run to the next."""
    text = re.sub(r"_Selector(?=SocketTransport)", "", str(text))
    return re.sub(r"0x[0-9a-f]+", "0x", re.sub(r"fd=\d+", "fd=N", text))


def error_text(error: BaseException | None) -> str | None:
    """An exception in words that can be compared."""
    return None if error is None else f"{type(error).__name__}: {plain(error)}"


class Keeps(asyncio.BaseProtocol):
    """Records its calls, in order; data that comes in several pieces is one entry."""

    transport: Any = None

    def __init__(self, keep_open: bool | None = None) -> None:
        self.seen: list[Any] = []
        self.keep_open = keep_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.seen.append("made")

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def eof_received(self) -> bool | None:
        self.seen.append("eof")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", error_text(exc)))

    def keep(self, data: bytes) -> None:
        assert data
        if self.seen and isinstance(self.seen[-1], bytes):
            data = self.seen.pop() + data
        self.seen.append(data)

    def has(self, size: int) -> bool:
        """Whether so many bytes have come."""
        return sum(len(what) for what in self.seen if isinstance(what, bytes)) >= size

    def lost(self) -> bool:
        return bool(self.seen) and self.seen[-1][0] == "lost"


class Plain(Keeps, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.keep(data)


class Buffered(Keeps, asyncio.BufferedProtocol):
    def __init__(self, keep_open: bool | None = None, size: int = 16) -> None:
        super().__init__(keep_open)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.keep(bytes(self.buffer[:nbytes]))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b, _ = server.accept()
    return a, b


@contextlib.asynccontextmanager
async def connection(
    protocol: asyncio.BaseProtocol,
    *,
    tcp: bool = False,
    sock: Callable[[socket.socket], socket.socket] | None = None,
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A transport of the running loop, and its peer: a socket. `sock` makes the transport's of another."""
    near, peer = tcp_pair() if tcp else socket.socketpair()
    if sock is not None:
        near = sock(near)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport: Any = (await loop.create_connection(lambda: protocol, sock=near))[0]
    async with ended(transport, peer):
        yield transport, peer


@contextlib.asynccontextmanager
async def ended(transport: Any, peer: socket.socket) -> AsyncIterator[None]:
    """Close the peer at the end, and wait until the transport is closed."""
    try:
        yield
    finally:
        peer.close()
        if transport.get_protocol() is not None:
            transport.abort()
        await soon(lambda: transport.get_protocol() is None)


async def turns(count: int = 5) -> None:
    """Let the loop turn: ready callbacks run, and those that they make ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def soon(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return when the condition holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    for turn in range(1_000_000_000):
        if condition():
            return
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0 if turn < 50 else 0.001)


async def receive(peer: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer when that is all before the end."""
    data = b""
    while len(data) < size:
        async with asyncio.timeout(20):
            more = await asyncio.get_running_loop().sock_recv(peer, min(size - len(data), 1 << 20))
        if not more:
            break
        data += more
    return data


async def receive_all(peer: socket.socket) -> bytes:
    return await receive(peer, 1 << 40)


def small_buffers(sock: socket.socket) -> socket.socket:
    """Let it take little at a time."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    return sock


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that the other end gets a reset, not an end of file."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def complaints() -> list[dict[str, Any]]:
    """The contexts that the running loop's exception handler is called with from now on."""
    kept: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: kept.append(context))
    return kept


@contextlib.contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[str]]:
    """The messages that asyncio logs, each with its exception."""
    kept: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            kept.append(plain(record.getMessage()) + (f" ({error_text(error)})" if error else ""))

    logger = logging.getLogger("asyncio")
    handler, before, propagates = Handler(level), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield kept
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagates
