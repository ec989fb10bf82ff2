"""Operations of a loop on sockets, pipes and processes.

Each is an asynchronous context manager that gives a function as in ``scheduling.py``. What it sets up and
tears down is not measured.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from .scheduling import BATCH

__all__ = ["FILES", "Work"]

Work = Callable[[int], Awaitable[int]]

MESSAGE = b"x" * 64
SENDER = """
import contextlib, os, socket, sys
with contextlib.suppress(OSError):
    os.sched_setaffinity(0, set(range(os.cpu_count())) - os.sched_getaffinity(0))
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as conn:
    for count in sys.stdin:
        left = memoryview(bytes(int(count) * 1024))
        while left:
            conn.sendall(left[:262144])
            left = left[262144:]
"""


@asynccontextmanager
async def add_reader() -> AsyncIterator[Work]:
    """On a socket that the loop has watched before, a batch in each turn."""
    loop = asyncio.get_running_loop()
    calls = 0

    def callback() -> None:
        nonlocal calls
        calls += len(ours.recv(1))

    async def work(count: int) -> int:
        done = 0
        for _ in range(count // BATCH):
            for _ in range(BATCH):
                loop.add_reader(ours, callback)
                loop.remove_reader(ours)
                done += 1
            await asyncio.sleep(0)
        await check()
        return done

    async def check() -> None:
        """Of the readers, the last added is called, and one that was removed is not."""
        before = calls
        theirs.send(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        removed_was_called = calls > before
        loop.add_reader(ours, callback)
        while calls == before:
            await asyncio.sleep(0)
        loop.remove_reader(ours)
        if removed_was_called:
            raise RuntimeError("a removed reader was called")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield work


@asynccontextmanager
async def connect_and_close() -> AsyncIterator[Work]:
    """A connection to a server in the same loop, both ends with streams, until both ends are closed."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.read()
        writer.close()
        await writer.wait_closed()
        served += 1

    async def work(count: int) -> int:
        before = served
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write_eof()
            await reader.read()
            writer.close()
            await writer.wait_closed()
        while served < before + count:
            await asyncio.sleep(0)
        return served - before

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield work
    server.close()


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = self.wanted = 0
        self.complete: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.complete is not None and self.received >= self.wanted:
            self.complete.set_result(None)
            self.complete = None


@asynccontextmanager
async def bulk() -> AsyncIterator[Work]:
    """KiB that a Protocol receives over TCP from another process, which has another core."""
    loop, receiver = asyncio.get_running_loop(), Receiver()

    async def work(count: int) -> int:
        before = receiver.received
        receiver.wanted, receiver.complete = before + count * 1024, loop.create_future()
        complete = receiver.complete
        os.write(commands, f"{count}\n".encode())
        await complete
        return (receiver.received - before) // 1024

    server = await loop.create_server(lambda: receiver, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    with subprocess.Popen([sys.executable, "-c", SENDER, port], stdin=subprocess.PIPE) as sender:
        assert sender.stdin is not None
        commands = sender.stdin.fileno()
        yield work
        sender.kill()
    server.close()


class Datagrams(asyncio.DatagramProtocol):
    """Sends every datagram back; the asking side counts, and ends after so many."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left
        self.received = 0
        self.complete: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.received += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                assert self.complete is not None
                self.complete.set_result(None)
                return
        self.transport.sendto(data, address)


@asynccontextmanager
async def udp() -> AsyncIterator[Work]:
    """A datagram and its answer, both ends in the same loop."""
    loop, asking, answering = asyncio.get_running_loop(), Datagrams(0), Datagrams()

    async def work(count: int) -> int:
        before = answering.received
        asking.left, asking.complete = count, loop.create_future()
        asking.transport.sendto(MESSAGE, address)
        await asking.complete
        return answering.received - before

    here = ("127.0.0.1", 0)
    answer, _ = await loop.create_datagram_endpoint(lambda: answering, local_addr=here)
    address = answer.get_extra_info("sockname")
    ask, _ = await loop.create_datagram_endpoint(lambda: asking, local_addr=here)
    yield work
    ask.close()
    answer.close()


@asynccontextmanager
async def sock() -> AsyncIterator[Work]:
    """A message and its answer on a socket pair, with ``sock_sendall`` and ``sock_recv`` in two tasks."""
    loop = asyncio.get_running_loop()
    answered = 0

    async def answer() -> None:
        nonlocal answered
        while data := await loop.sock_recv(theirs, 4096):
            await loop.sock_sendall(theirs, data)
            answered += 1

    async def work(count: int) -> int:
        before = answered
        for _ in range(count):
            await loop.sock_sendall(ours, MESSAGE)
            if await loop.sock_recv(ours, 4096) != MESSAGE:
                raise RuntimeError("not the message")
        return answered - before

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        other = asyncio.create_task(answer())
        yield work
        ours.shutdown(socket.SHUT_WR)
        await other


class Pipe(asyncio.Protocol):
    """Writes what it reads to another pipe, until the asking side has read enough."""

    def __init__(self) -> None:
        self.target: asyncio.WriteTransport | None = None
        self.received = 0
        self.left = -1
        self.complete: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self.received += 1
        self.left -= 1
        if self.left == 0:
            assert self.complete is not None
            self.complete.set_result(None)
        else:
            assert self.target is not None
            self.target.write(data)


@asynccontextmanager
async def pipes() -> AsyncIterator[Work]:
    """A message and its answer through two pipes, both ends in the same loop."""
    loop, asking, answering = asyncio.get_running_loop(), Pipe(), Pipe()

    async def work(count: int) -> int:
        before = answering.received
        asking.left, asking.complete = count, loop.create_future()
        assert asking.target is not None
        asking.target.write(MESSAGE)
        await asking.complete
        return answering.received - before

    transports: list[asyncio.BaseTransport] = []
    for reader, writer in ((asking, answering), (answering, asking)):
        read_fd, write_fd = os.pipe()
        read, _ = await loop.connect_read_pipe(lambda: reader, os.fdopen(read_fd, "rb", 0))  # noqa: B023
        write, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write_fd, "wb", 0))
        writer.target = write
        transports += [write, read]
    yield work
    for transport in transports:
        transport.close()


@asynccontextmanager
async def spawn() -> AsyncIterator[Work]:
    """The process ``true`` is started and awaited. Its own CPU time does not count."""

    async def work(count: int) -> int:
        ended = 0
        for _ in range(count):
            process = await asyncio.create_subprocess_exec("true")
            ended += await process.wait() == 0
        return ended

    yield work


FILES: dict[str, Callable[[], AbstractAsyncContextManager[Work]]] = {
    "add_reader + remove_reader": add_reader,
    "connect and close, streams": connect_and_close,
    "bulk, a KiB": bulk,
    "UDP round trip": udp,
    "sock_recv/sock_sendall": sock,
    "pipe round trip": pipes,
    "subprocess": spawn,
}
