"""Transports of pipes: what a program sees is as with asyncio's own transports."""

import array
import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import re
import signal
import socket
import sys
import termios
import threading
import tty
import warnings
import weakref
from asyncio import unix_events
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.fds import open_fds
from support.loops import Plain, complaints, error_text, logged, on, same, soon, turns

F_SETPIPE_SZ = 1031

_unix: Any = unix_events


def plain(text: object) -> str:
    """A text without the name of the transport's class and the numbers."""
    text = re.sub(r"_Unix(?=(Read|Write)PipeTransport)", "", str(text))
    return re.sub(r"(fd=|0x)[0-9a-f]+", r"\1N", text)


@contextlib.asynccontextmanager
async def reading(protocol: asyncio.BaseProtocol, fd: int, *also: int) -> AsyncIterator[Any]:
    """A transport that reads from an fd, and closes it; the others are closed as well, if they are open."""
    loop = asyncio.get_running_loop()
    transport: Any = (await loop.connect_read_pipe(lambda: protocol, open(fd, "rb", 0)))[0]
    async with closed_at_the_end(transport, also):
        yield transport


@contextlib.asynccontextmanager
async def writing(protocol: asyncio.BaseProtocol, fd: int, *also: int) -> AsyncIterator[Any]:
    """A transport that writes to an fd, in the same way."""
    loop = asyncio.get_running_loop()
    transport: Any = (await loop.connect_write_pipe(lambda: protocol, open(fd, "wb", 0)))[0]
    async with closed_at_the_end(transport, also):
        yield transport


@contextlib.asynccontextmanager
async def closed_at_the_end(transport: Any, also: tuple[int, ...]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for fd in also:
            with contextlib.suppress(OSError):
                os.close(fd)
        if not transport.is_closing():
            transport.close()
        await soon(lambda: transport.get_protocol() is None)


def drained(fd: int) -> bytes:
    """All that is in a pipe."""
    os.set_blocking(fd, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    return b"".join(parts)


def fill(transport: Any, size: int = 300_000) -> bytes:
    """Write more than fits into a pipe; return it."""
    data = os.urandom(1000) * (size // 1000)
    transport.write(data)
    return data


async def drained_until(fd: int, condition: Callable[[], bool]) -> bytes:
    parts = [drained(fd)]

    def done() -> bool:
        parts.append(drained(fd))
        return condition()

    await soon(done)
    return b"".join([*parts, drained(fd)])


class Reads(Plain):
    """Calls a function of the transport when data comes."""

    def __init__(self, on_data: Callable[[Any], object]) -> None:
        super().__init__()
        self.on_data = on_data

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)
        self.on_data(self.transport)


@pytest.mark.parametrize("debug", [False, True])
def test_reading_until_the_end(debug: bool) -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        with logged(20) as messages:
            async with reading(protocol, read):
                os.write(write, b"one")
                await soon(lambda: protocol.has(3))
                os.write(write, b"two")
                os.close(write)
                await soon(protocol.lost)
        closed = [plain(text) for text in messages if "closed by peer" in text]
        return [*protocol.seen, closed]

    *_, closed = same(scenario, debug=debug)
    assert len(closed) == debug


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 200_000])
def test_a_large_amount_arrives_unchanged(size: int) -> None:
    async def scenario() -> bool:
        read, write = os.pipe()
        fcntl.fcntl(write, F_SETPIPE_SZ, 1 << 20)
        data = os.urandom(size)
        protocol = Plain()
        async with reading(protocol, read, write):
            os.write(write, data)
            await soon(lambda: protocol.has(size))
            return [b"".join(protocol.seen[1:])] == [data]

    assert same(scenario)


def test_objects_that_were_passed_on_stay_as_they_are() -> None:
    async def scenario() -> bool:
        read, write = os.pipe()
        parts = [bytes([number]) * 65536 for number in range(20)]
        got: list[bytes] = []
        protocol = Reads(lambda transport: got.append(protocol.seen[-1]))
        async with reading(protocol, read, write):
            for number, part in enumerate(parts):
                os.write(write, part)
                await soon(lambda: sum(map(len, got)) == (number + 1) * 65536)  # noqa: B023
        return b"".join(got) == b"".join(parts)

    assert same(scenario)


@pytest.mark.parametrize("size", [1, 3, 100_000_000, 1 << 70, 0, -1])
def test_max_size_limits_a_read(size: int) -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()
        seen: list[bytes] = []
        protocol = Reads(lambda transport: seen.append(protocol.seen[-1]))
        async with reading(protocol, read, write) as transport:
            transport.max_size = size
            os.write(write, b"123456789")
            await turns(20)
            return [
                seen,
                [error_text(context["exception"]) for context in problems][:1],
                transport.is_closing(),
            ]

    same(scenario)


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_message_longer_than_a_pipe_is_read_whole(kind: socket.SocketKind) -> None:
    """A socket that keeps the bounds of messages drops the part of one that was not read."""

    async def scenario() -> list[Any]:
        near, peer = socket.socketpair(socket.AF_UNIX, kind)
        messages: list[bytes] = []
        protocol = Reads(lambda transport: messages.append(protocol.seen[-1]))
        async with reading(protocol, near.detach()):
            with peer:
                for size in 100_000, 4, 65_536, 65_537:
                    peer.send(bytes(size))
                    await turns()
                await turns()
        return [len(message) for message in messages]

    assert same(scenario) == [100_000, 4, 65_536, 65_537]


@pytest.mark.parametrize("size", [65_537, 200_000])
def test_a_larger_pipe_is_read_at_once_if_asked_for(size: int) -> None:
    async def scenario() -> list[int]:
        read, write = os.pipe()
        fcntl.fcntl(write, F_SETPIPE_SZ, 1 << 20)
        sizes: list[int] = []
        protocol = Reads(lambda transport: sizes.append(len(protocol.seen[-1])))
        async with reading(protocol, read, write) as transport:
            transport.max_size = 256 * 1024
            os.write(write, bytes(size))
            await soon(lambda: sum(sizes) == size)
        return sizes

    assert same(scenario) == [size]


@pytest.mark.parametrize("method", ["close", "pause_reading", "_fatal_error"])
def test_methods_called_in_data_received(method: str) -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        arguments = [OSError(errno.EIO, "I/O")] if method == "_fatal_error" else []
        protocol = Reads(lambda transport: getattr(transport, method)(*arguments))
        async with reading(protocol, read, write):
            os.write(write, b"one")
            await turns(10)
            with contextlib.suppress(BrokenPipeError):
                os.write(write, b"two")
            await turns(10)
            return list(protocol.seen)

    same(scenario)


def test_nothing_is_read_while_paused_and_all_of_it_later() -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        async with reading(protocol, read) as transport:
            transport.pause_reading()
            transport.pause_reading()
            os.write(write, b"data")
            os.close(write)
            await turns(10)
            seen = list(protocol.seen)
            transport.resume_reading()
            transport.resume_reading()
            await soon(protocol.lost)
            return [seen, protocol.seen]

    assert same(scenario) == [["made"], ["made", b"data", "eof", ("lost", None)]]


def test_an_exception_in_data_received_is_reported_and_reading_goes_on() -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()

        def fail(transport: Any) -> None:
            raise ZeroDivisionError(protocol.seen[-1])

        protocol = Reads(fail)
        async with reading(protocol, read, write):
            os.write(write, b"one")
            await soon(lambda: len(problems) == 1)
            os.write(write, b"two")
            await soon(lambda: len(problems) == 2)
            return [protocol.seen, [error_text(context["exception"]) for context in problems]]

    same(scenario)


def test_the_protocol_can_be_exchanged() -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        first, second = Plain(), Plain()
        async with reading(first, read, write) as transport:
            os.write(write, b"one")
            await soon(lambda: first.has(3))
            transport.set_protocol(second)
            os.write(write, b"two")
            await soon(lambda: second.has(3))
            return [first.seen, second.seen, transport.get_protocol() is second]

    same(scenario)


@pytest.mark.parametrize("debug", [False, True])
def test_the_end_of_a_terminal(debug: bool) -> None:
    """A pseudoterminal whose other end is closed fails with EIO: this is no problem to report."""

    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.openpty()
        protocol = Plain()
        async with reading(protocol, read):
            os.close(write)
            await soon(protocol.lost)
        return [protocol.seen, problems]

    assert same(scenario, debug=debug)[1] == []


def test_a_control_d_on_a_terminal_is_the_end() -> None:
    """The end of file of a terminal can be read once only."""

    async def scenario() -> list[Any]:
        control, terminal = os.openpty()
        attributes = termios.tcgetattr(terminal)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        protocol = Plain()
        async with reading(protocol, terminal, control):
            os.write(control, b"line\n")
            await soon(lambda: protocol.has(5))
            os.write(control, b"\x04")
            await soon(protocol.lost)
        return protocol.seen

    assert same(scenario) == ["made", b"line\n", "eof", ("lost", None)]


def test_terminals_sockets_and_fifos_are_written_to(tmp_path: Any) -> None:
    async def scenario() -> list[Any]:
        control, terminal = os.openpty()
        tty.setraw(terminal)
        ours, theirs = socket.socketpair()
        path = tmp_path / "fifo"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        found: list[Any] = []
        with theirs:
            for end, other in ((terminal, control), (ours.detach(), theirs.fileno()), (os.dup(fifo), fifo)):
                protocol = Plain()
                async with writing(protocol, end) as transport:
                    transport.write(b"data")
                    found.append(drained(other))
                found.append(protocol.seen)
        os.close(fifo)
        os.close(control)
        return found

    assert same(scenario)[0::2] == [b"data"] * 3


def test_other_files_are_refused(tmp_path: Any) -> None:
    async def scenario() -> list[Any]:
        loop, path = asyncio.get_running_loop(), tmp_path / "file"
        path.write_bytes(b"data")
        found = []
        for connect, mode in ((loop.connect_read_pipe, "rb"), (loop.connect_write_pipe, "wb")):
            with open(path, mode) as file:
                try:
                    await connect(Plain, file)
                except ValueError as error:
                    found.append(str(error))
        return found

    assert len(same(scenario)) == 2


def test_an_fd_closed_by_someone_else_is_reported() -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()
        protocol = Plain()
        file = open(write, "wb", 0)
        loop = asyncio.get_running_loop()
        transport: Any = (await loop.connect_write_pipe(lambda: protocol, file))[0]
        file.close()
        transport.write(b"data")
        transport.write(b"more")
        await soon(protocol.lost)
        os.close(read)
        return [protocol.seen, [error_text(context["exception"]) for context in problems]]

    same(scenario)


def test_a_read_that_fails_is_reported_and_closes() -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()
        protocol = Plain()
        async with reading(protocol, read, write) as transport:
            directory = os.open("/", os.O_RDONLY)
            os.dup2(directory, read)
            os.close(directory)
            transport._read_ready()
            await soon(protocol.lost)
        return [protocol.seen, [(each["message"], error_text(each["exception"])) for each in problems]]

    assert same(scenario) == [
        ["made", ("lost", "IsADirectoryError: [Errno 21] Is a directory")],
        [("Fatal read error on pipe transport", "IsADirectoryError: [Errno 21] Is a directory")],
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_being_handled_while_it_is_reported(debug: bool) -> None:
    """Exception handlers may call sys.exc_info(), and debug mode logs a traceback."""

    async def scenario() -> list[Any]:
        found: list[Any] = []

        def handler(loop: Any, context: dict[str, Any]) -> None:
            error = context["exception"]
            found.append([sys.exc_info()[1] is error, error.__traceback__ is not None])

        asyncio.get_running_loop().set_exception_handler(handler)
        directory = os.open("/", os.O_RDONLY)
        (read, write), (other_read, other_write) = os.pipe(), os.pipe()
        with logged(10) as messages:
            async with reading(Plain(), read, write) as reader, writing(Plain(), other_write) as writer:
                os.dup2(directory, read)
                reader._read_ready()
                os.close(other_read)
                writer.write(b"data")
        os.close(directory)
        return [found, [plain(text) for text in messages if "Fatal" in text]]

    found, messages = same(scenario, debug=debug)
    assert found == [[True, True]]
    assert [text.endswith("(BrokenPipeError: [Errno 32] Broken pipe)") for text in messages] == [True] * debug


def test_an_error_leaves_no_cycle() -> None:
    """The exception, its traceback and the transport are freed without the garbage collector."""

    async def scenario() -> list[bool]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        directory = os.open("/", os.O_RDONLY)
        (read, write), (other_read, other_write) = os.pipe(), os.pipe()
        async with reading(Plain(), read, write) as reader, writing(Plain(), other_write) as writer:
            references = weakref.ref(reader), weakref.ref(writer)
            os.dup2(directory, read)
            reader._read_ready()
            os.close(other_read)
            writer.write(b"data")
        os.close(directory)
        del reader, writer
        await turns()
        return [reference() is None for reference in references]

    gc.collect()
    gc.disable()
    try:
        assert same(scenario) == [True, True]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_does_not_fit_is_written_later(kind: Callable[[bytes], Any]) -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        async with writing(protocol, write, read) as transport:
            data = os.urandom(1000) * 300
            transport.write(kind(data))
            transport.write(kind(b"more"))
            size = transport.get_write_buffer_size()
            got = await drained_until(read, lambda: transport.get_write_buffer_size() == 0)
            transport.write(kind(b"last"))
            got += drained(read)
            return [list(protocol.seen), size, got == data + b"morelast"]

    assert same(scenario)[0] == ["made", "pause", "resume"]


def test_data_that_a_signal_handler_writes_during_a_write_is_kept() -> None:
    """The handler runs after the system call of the first write, and before the rest is in the buffer."""

    async def scenario() -> list[int]:
        loop: Any = asyncio.get_running_loop()
        add_writer = loop._add_writer

        def add_writer_and_signal(*args: Any) -> None:
            add_writer(*args)
            if len(signals) < 3:
                signal.raise_signal(signal.SIGUSR1)

        def handler(*args: Any) -> None:
            signals.append(args)
            transport.write(b"from the handler")

        signals: list[Any] = []
        before = signal.signal(signal.SIGUSR1, handler)
        read, write = os.pipe()
        try:
            async with writing(Plain(), write, read) as transport:
                loop._add_writer = add_writer_and_signal
                transport.write(bytes(100_000))
                del loop._add_writer
                got = await drained_until(read, lambda: not transport.get_write_buffer_size())
        finally:
            signal.signal(signal.SIGUSR1, before)
        return [len(got), got.count(b"from the handler"), len(signals)]

    assert same(scenario)[1] == 3


def test_a_buffer_may_be_changed_after_write() -> None:
    async def scenario() -> bool:
        read, write = os.pipe()
        async with writing(Plain(), write, read) as transport:
            data = bytearray(os.urandom(1000) * 300)
            before = bytes(data)
            transport.write(data)
            data[:] = bytes(len(data))
            data.clear()
            return await drained_until(read, lambda: not transport.get_write_buffer_size()) == before

    assert same(scenario)


def test_a_memoryview_of_larger_items_is_written_once() -> None:
    """asyncio compares the bytes written with the number of items, and writes some of them twice."""

    async def scenario() -> bool:
        read, write = os.pipe()
        async with writing(Plain(), write, read) as transport:
            items = array.array("Q", range(30_000))
            transport.write(memoryview(items)[:4])
            transport.write(memoryview(items))
            got = await drained_until(read, lambda: not transport.get_write_buffer_size())
            return got == items[:4].tobytes() + items.tobytes()

    assert on("pyepoll", scenario)


@pytest.mark.parametrize(
    "data",
    [b"", bytearray(), memoryview(b""), "text", None, 5, memoryview(b"abcdef")[::2], array.array("I", [1])],
)
def test_unusual_data(data: Any) -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()
        protocol = Plain()
        found: list[Any] = []
        async with writing(protocol, write, read) as transport:
            try:
                found.append(transport.write(data))
            except Exception as error:
                found.append(error_text(error))
            await turns()
            found += [drained(read), list(protocol.seen)]
        return [*found, [error_text(context["exception"]) for context in problems]]

    same(scenario)


@pytest.mark.parametrize("offset", [2**32, 2**70])
def test_an_fd_that_is_none_is_not_used(offset: int) -> None:
    """A program has set the private attribute; a part of the number would be an fd."""

    async def scenario() -> tuple[bytes, bytes, list[Any]]:
        complaints()
        (read, write), (other_read, other_write) = os.pipe(), os.pipe()
        os.write(other_write, b"data")
        protocol = Plain()
        async with (
            writing(Plain(), write, read) as writer,
            reading(protocol, other_read, other_write) as reader,
        ):
            for transport, call in (writer, lambda: writer.write(b"data")), (reader, reader._read_ready):
                fd = transport._fileno
                transport._fileno = fd + offset
                with pytest.raises(OverflowError):
                    call()
                transport._fileno = fd
            found = drained(read), os.read(other_read, 10), list(protocol.seen)
        return found

    assert on("pyepoll", scenario) == (b"", b"data", ["made"])


def test_arguments_of_write() -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        found: list[Any] = []
        async with writing(Plain(), write, read) as transport:
            transport.write(data=b"by name")
            for arguments in ((), (b"1", b"2")):
                try:
                    transport.write(*arguments)
                except TypeError:
                    found.append(TypeError)
            transport.writelines([b" and", b" lines"])
            return [*found, drained(read)]

    assert same(scenario) == [TypeError, TypeError, b"by name and lines"]


def test_a_peer_that_closes_while_data_waits() -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        async with writing(protocol, write) as transport:
            fill(transport)
            os.close(read)
            await soon(protocol.lost)
        return protocol.seen

    same(scenario)


def test_writes_after_the_peer_has_closed_are_dropped_with_a_warning() -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        with logged() as messages:
            async with writing(protocol, write) as transport:
                os.close(read)
                for _ in range(10):
                    transport.write(b"data")
                await soon(protocol.lost)
                transport.write(b"after the end")
        return [protocol.seen, messages]

    assert len(same(scenario)[1]) > 1


def test_a_write_while_an_error_is_reported_is_dropped() -> None:
    """The transport counts the error first, reports it, and closes then."""

    async def scenario() -> list[Any]:
        read, write = os.pipe()
        async with writing(Plain(), write, read) as transport:
            transport._conn_lost = 1
            transport.write(b"data")
            return [drained(read), transport._conn_lost]

    assert same(scenario) == [b"", 2]


@pytest.mark.parametrize("method", ["close", "write_eof", "abort"])
@pytest.mark.parametrize("waiting", [False, True])
def test_closing_a_writer(method: str, waiting: bool) -> None:
    async def scenario() -> list[Any]:
        problems = complaints()
        read, write = os.pipe()
        protocol = Plain()
        found: list[Any] = []
        async with writing(protocol, write) as transport:
            data = fill(transport) if waiting else b""
            getattr(transport, method)()
            transport.write(b"after closing")
            transport.close()
            found += [transport.is_closing(), transport.get_write_buffer_size()]
            got = await drained_until(read, protocol.lost)
            found += [got == data, len(got), protocol.seen, transport.can_write_eof()]
        os.close(read)
        return [*found, problems]

    same(scenario)


@pytest.mark.parametrize("limits", [{"high": 1000}, {"high": 1000, "low": 10}, {"high": 0}])
def test_limits_of_the_buffer(limits: dict[str, int]) -> None:
    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        async with writing(protocol, write, read) as transport:
            transport.set_write_buffer_limits(**limits)
            transport.write(bytes(65536))
            before = list(protocol.seen)
            transport.write(b"more")
            size = transport.get_write_buffer_size()
            transport.write(bytes(1000))
            seen = list(protocol.seen)
            await drained_until(read, lambda: transport.get_write_buffer_size() == 0)
            return [before, size, seen, protocol.seen, transport.get_write_buffer_limits()]

    same(scenario)


@pytest.mark.parametrize("debug", [False, True])
def test_texts_of_transports(debug: bool) -> None:
    async def scenario() -> list[str]:
        read, write = os.pipe()
        found = []
        async with reading(Plain(), read) as reader, writing(Plain(), write) as writer:
            found += [plain(reader), plain(writer)]
            fill(writer, 100_000)
            found.append(re.sub(r"bufsize=\d+", "bufsize=N", plain(writer)))
            reader.pause_reading()
            found.append(plain(reader))
            writer.abort()
            reader.close()
            found += [plain(reader), plain(writer)]
        return [*found, plain(reader), plain(writer)]

    same(scenario, debug=debug)


def test_an_unclosed_transport_warns_and_closes_its_pipe() -> None:
    async def scenario() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        read, write = os.pipe()
        peer, read2 = os.dup(write), os.dup(read)
        reader: Any = (await loop.connect_read_pipe(Plain, open(read, "rb", 0)))[0]
        writer: Any = (await loop.connect_write_pipe(Plain, open(write, "wb", 0)))[0]
        loop._remove_reader(read)
        loop._remove_reader(write)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del reader, writer
            gc.collect()
        closed = not {read, write} & set(open_fds())
        for fd in peer, read2:
            os.close(fd)
        texts = sorted(plain(each.message) for each in caught if "transport" in str(each.message))
        return [texts, closed]

    texts, closed = same(scenario)
    assert (len(texts), closed) == (2, True)


def test_a_blocking_pipe_does_not_hold_the_gil() -> None:
    """Another process that has the open file description may make it blocking, and a thread of ours read."""

    async def scenario() -> int:
        read, write = os.pipe()
        total = []

        def drain() -> None:
            while part := os.read(read, 65536):
                total.append(len(part))

        thread = threading.Thread(target=drain)
        async with writing(Plain(), write) as transport:
            os.set_blocking(write, True)
            thread.start()
            transport.write(bytes(60_000))
            transport.write(bytes(60_000))
            transport.write(bytes(60_000))
        thread.join(20)
        assert not thread.is_alive()
        os.close(read)
        return sum(total)

    assert same(scenario) == 180_000


@pytest.mark.parametrize("name", ["_UnixReadPipeTransport", "_UnixWritePipeTransport"])
def test_a_class_that_a_program_has_put_in_the_place_of_asyncios_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = type("Mine", (getattr(_unix, name),), {})
    monkeypatch.setattr(_unix, name, mine)

    async def scenario() -> list[bool]:
        read, write = os.pipe()
        async with reading(Plain(), read) as reader, writing(Plain(), write) as writer:
            return [type(reader) is mine, type(writer) is mine]

    assert sum(same(scenario)) == 1


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (_unix._UnixReadPipeTransport, "_read_ready"),
        (_unix._UnixWritePipeTransport, "write"),
        (os, "read"),
        (os, "write"),
    ],
)
def test_methods_that_a_program_has_replaced_are_called(
    where: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = getattr(where, name)

    def instead(*args: Any) -> Any:
        calls.append(name)
        return original(*args)

    async def scenario() -> list[Any]:
        read, write = os.pipe()
        protocol = Plain()
        calls.clear()
        async with reading(protocol, read), writing(Plain(), write) as writer:
            writer.write(b"data")
            await soon(lambda: protocol.has(4))
        return [calls.count(name) > 0, protocol.seen[1]]

    monkeypatch.setattr(where, name, instead)
    assert same(scenario)[0]


def test_functions_that_a_program_replaces_later_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may do so while the transport exists, and put the original back."""
    os_read, os_write = os.read, os.write
    calls: list[Any] = []

    def read_one(fd: int, size: int) -> bytes:
        return os_read(fd, 1)

    def write_two(fd: int, data: Any) -> int:
        calls.append(bytes(data))
        return os_write(fd, bytes(data)[:2])

    async def scenario() -> list[Any]:
        (read, write), (other_read, other_write) = os.pipe(), os.pipe()
        found: list[bytes] = []
        protocol = Reads(lambda transport: found.append(protocol.seen[-1]))
        calls.clear()
        async with reading(protocol, read, write), writing(Plain(), other_write, other_read) as writer:
            with monkeypatch.context() as patch:
                patch.setattr(os, "read", read_one)
                patch.setattr(os, "write", write_two)
                os_write(write, b"abc")
                writer.write(b"data")
                await soon(lambda: len(found) == 3 and not writer.get_write_buffer_size())
            os_write(write, b"def")
            writer.write(b" and more")
            await soon(lambda: len(found) == 4)
            return [found, list(calls), drained(other_read)]

    assert same(scenario) == [[b"a", b"b", b"c", b"def"], [b"data", b"ta"], b"data and more"]


def test_the_reading_is_in_c() -> None:
    """Otherwise the other tests compare asyncio with itself."""

    async def scenario() -> list[str]:
        read, write = os.pipe()
        async with reading(Plain(), read) as reader, writing(Plain(), write) as writer:
            return [type(reader._read_ready).__name__, type(writer.write).__name__]

    assert on("pyepoll", scenario) == ["builtin_function_or_method"] * 2


def test_attributes_outside_the_transports_life() -> None:
    """Objects that __init__() has not seen, and calls after the end, fail with an exception."""
    from pyepoll import _pipes

    cases: list[tuple[Any, str, tuple[bytes, ...]]] = [
        (_pipes.ReadPipeTransport, "_read_ready", ()),
        (_pipes.WritePipeTransport, "write", (b"data",)),
    ]
    for kind, method, arguments in cases:
        transport = kind.__new__(kind)
        with pytest.raises(AttributeError):
            getattr(transport, method)(*arguments)
        transport._pipe = None  # For its __del__().
        with pytest.raises(TypeError):
            getattr(kind, method)(object(), *arguments)


def test_a_read_after_the_end_does_nothing() -> None:
    async def scenario() -> None:
        read, write = os.pipe()
        async with reading(Plain(), read, write) as transport:
            pass
        other, end = os.pipe()
        os.write(end, b"not for the transport")
        transport._read_ready()
        assert drained(other) == b"not for the transport"
        os.close(other)
        os.close(end)

    on("pyepoll", scenario)


def test_a_loop_of_pipes_leaves_nothing_behind() -> None:
    async def scenario() -> int:
        references = []
        for _ in range(20):
            read, write = os.pipe()
            async with reading(Plain(), read) as reader, writing(Plain(), write) as writer:
                writer.write(bytes(200_000))
                references += [weakref.ref(reader), weakref.ref(writer)]
        del reader, writer
        await turns()
        gc.collect()
        return sum(reference() is not None for reference in references)

    assert same(scenario) == 0


def test_classes_are_asyncios() -> None:
    async def scenario() -> list[bool]:
        read, write = os.pipe()
        async with reading(Plain(), read) as reader, writing(Plain(), write) as writer:
            return [
                isinstance(reader, _unix._UnixReadPipeTransport),
                isinstance(writer, _unix._UnixWritePipeTransport),
            ]

    assert same(scenario) == [True, True]
