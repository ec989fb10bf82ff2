"""A TCP connection whose reads empty its socket is reported by edges; nothing may get lost by that."""

import asyncio
import contextlib
import fcntl
import os
import random
import select
import signal
import socket
import threading
import time
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.kernel import fdinfo
from support.loops import Buffered, Keeps, Plain, connection, on, reset, same, soon, tcp_pair, turns

import pyepoll

EMPTIED = 16
"""So many reads in a row have to empty the socket."""

LIMIT = 256 * 1024
"""An event reads at most so much."""

Transport = Any


def by_edges(transport: Transport) -> bool:
    """Whether the kernel reports to the transport by edges."""
    selector: Any = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009
    registered = fdinfo(selector).get(transport.get_extra_info("socket").fileno(), (0, 0))
    return bool(registered[0] & pyepoll.EPOLLET)


async def arrive(seen: Keeps, peer: socket.socket, count: int = EMPTIED) -> None:
    """One message after another."""
    for _ in range(count):
        size = sum(len(what) for what in seen.seen if isinstance(what, bytes))
        peer.send(b".")
        await soon(lambda size=size: seen.has(size + 1))  # type: ignore[misc]


@contextlib.asynccontextmanager
async def connected(seen: Keeps, **options: Any) -> AsyncIterator[tuple[Transport, socket.socket]]:
    """A connection that is reported by edges."""
    async with connection(seen, tcp=True, **options) as (transport, peer):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await arrive(seen, peer)
        assert not isinstance(asyncio.get_running_loop(), pyepoll.aio.EventLoop) or by_edges(transport)
        seen.seen.clear()
        yield transport, peer


async def connect(loop: asyncio.AbstractEventLoop, seen: Keeps, near: socket.socket) -> Transport:
    return (await loop.create_connection(lambda: seen, sock=near))[0]


def arrived(transport: Transport) -> None:
    """Block until there is something to read."""
    assert select.select([transport.get_extra_info("socket").fileno()], [], [], 20)[0]
    time.sleep(0.01)  # A second packet needs it, too.


@pytest.mark.parametrize("protocol", [Plain, lambda: Buffered(size=1000)], ids=["plain", "buffered"])
def test_begins_when_reads_have_emptied_the_socket(protocol: Callable[[], Keeps]) -> None:
    async def scenario() -> None:
        seen = protocol()
        async with connection(seen, tcp=True) as (transport, peer):
            await arrive(seen, peer, EMPTIED - 1)
            assert not by_edges(transport)
            await arrive(seen, peer, 1)
            assert by_edges(transport)
            await arrive(seen, peer, 100)
            assert by_edges(transport)

    on("pyepoll", scenario)


@pytest.mark.parametrize("protocol", [Plain, lambda: Buffered(size=LIMIT)], ids=["plain", "buffered"])
def test_the_rest_after_a_full_read_is_reported(protocol: Callable[[], Keeps]) -> None:
    async def scenario() -> list[Any]:
        seen = protocol()
        async with connected(seen) as (transport, peer):
            transport.max_size = 100
            if isinstance(seen, Buffered):
                seen.buffer = bytearray(100)
            peer.send(b"x" * 1000)
            arrived(transport)
            await soon(lambda: seen.has(1000))
            assert not by_edges(transport)
            return seen.seen[:]

    same(scenario)


def test_much_data() -> None:
    """Faster than they are read."""
    sent = random.Random(7).randbytes(20 << 20)

    class Parts(Plain):
        def keep(self, data: bytes) -> None:
            self.seen.append(data)

    async def scenario() -> bool:
        seen = Parts()
        async with connected(seen) as (_, peer):
            peer.setblocking(True)
            sender = threading.Thread(target=peer.sendall, args=(sent,))
            sender.start()
            await soon(lambda: seen.has(len(sent)))
            sender.join()
            return b"".join(seen.seen) == sent

    assert same(scenario)


@pytest.mark.parametrize("keep_open", [False, True])
@pytest.mark.parametrize("data", [b"", b"the last"])
def test_the_end_comes_with_data(data: bytes, keep_open: bool) -> None:
    """One event for both."""

    async def scenario() -> list[Any]:
        seen = Plain(keep_open)
        async with connected(seen) as (transport, peer):
            peer.send(data)
            peer.shutdown(socket.SHUT_WR)
            arrived(transport)
            await soon(lambda: "eof" in seen.seen)
            await turns()
            return [*seen.seen, transport.is_closing()]

    expected = [*([data] if data else []), "eof", *([] if keep_open else [("lost", None)]), not keep_open]
    assert same(scenario) == expected


@pytest.mark.parametrize("data", [b"", b"the last"])
def test_a_reset(data: bytes) -> None:
    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            peer.send(data)
            reset(peer)
            arrived(transport)
            await soon(seen.lost)
            return seen.seen[:]

    same(scenario)


def test_data_behind_an_urgent_byte() -> None:
    """A read ends at it, although there is more."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            for count in 1, 2, 3:
                peer.send(b"abc")
                peer.send(b"!", socket.MSG_OOB)
                peer.send(b"def")
                arrived(transport)
                await soon(lambda count=count: seen.has(6 * count))  # type: ignore[misc]
            await arrive(seen, peer, 2 * EMPTIED)
            return seen.seen[:]

    assert same(scenario) == [b"abcdef" * 3 + b"." * 2 * EMPTIED]


@pytest.mark.parametrize("resume_in_turn", [True, False])
def test_an_event_before_a_pause(resume_in_turn: bool) -> None:
    """It was taken, and the reader is not called."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):

            def pause() -> None:
                transport.pause_reading()
                if resume_in_turn:
                    transport.resume_reading()

            peer.send(b"x")
            # Queued behind the wait of a turn, before the reader's handle: by a reader of a lower fd.
            first, second = socket.socketpair()
            loop = asyncio.get_running_loop()
            with first, second:
                second.send(b"x")
                arrived(transport)
                loop.add_reader(first, pause)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                loop.remove_reader(first)
            if not resume_in_turn:
                transport.resume_reading()
            await soon(lambda: seen.has(1))
            return seen.seen[:]

    same(scenario)


def test_pauses_while_data_arrive() -> None:
    class Pausing(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data != b".":
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def scenario() -> list[Any]:
        seen = Pausing()
        async with connected(seen) as (transport, peer):
            for _ in range(100):
                peer.send(b"xx")
                arrived(transport)
                peer.send(b"yy")
                await turns(2)
            await soon(lambda: seen.has(400))
            seen.seen.clear()
            await arrive(seen, peer)
            return [seen.seen[:], by_edges(transport)]

    assert on("pyepoll", scenario) == [[b"." * EMPTIED], True]


def test_an_event_that_select_takes() -> None:
    """A program that looks at the selector leaves the event to the loop."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            selector: Any = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009
            peer.send(b"x")
            arrived(transport)
            fd = transport.get_extra_info("socket").fileno()
            for _ in range(3):
                assert [key.fd for key, _ in selector.select(0)] == [fd]
            await soon(lambda: seen.has(1))
            return seen.seen[:]

    same(scenario)


def test_debug_mode() -> None:
    """Then asyncio's own turn runs, which calls select()."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            loop = asyncio.get_running_loop()
            for debug in True, False, True:
                loop.set_debug(debug)
                await arrive(seen, peer, 2 * EMPTIED)
                peer.send(b"x")
                arrived(transport)
            await soon(lambda: seen.has(6 * EMPTIED + 3))
            return seen.seen[:]

    same(scenario)


def test_a_wait_for_room_to_write() -> None:
    """The fd is watched for more than reading meanwhile."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            transport.write(b"x" * (8 << 20))
            await turns()
            if isinstance(asyncio.get_running_loop(), pyepoll.aio.EventLoop):
                assert not by_edges(transport)
            await arrive(seen, peer, 2 * EMPTIED)
            received = 0
            while received < 8 << 20:
                with contextlib.suppress(BlockingIOError):
                    received += len(peer.recv(1 << 20))
                await asyncio.sleep(0)
            await arrive(seen, peer, 2 * EMPTIED)
            if isinstance(asyncio.get_running_loop(), pyepoll.aio.EventLoop):
                assert by_edges(transport)
            return [what for what in seen.seen if isinstance(what, bytes)]

    same(scenario)


def test_a_unix_socket_is_not() -> None:
    """A read ends at a message with fds, although there is more."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connection(seen) as (transport, peer):
            await arrive(seen, peer, 2 * EMPTIED)
            assert not by_edges(transport)
            for data in b"one", b"two", b"three":
                socket.send_fds(peer, [data], [0])
            await soon(lambda: seen.has(2 * EMPTIED + 11))
            return seen.seen[:]

    on("pyepoll", scenario)


def test_a_reader_of_another_kind_is_not() -> None:
    """It may leave data where they are."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connection(seen, tcp=True) as (transport, peer):
            calls: list[int] = []
            read = transport._read_ready

            def read_at_the_second_call(self: Transport) -> None:
                calls.append(1)
                if len(calls) % 2 == 0:
                    read()

            transport.pause_reading()
            transport._read_ready = types.MethodType(read_at_the_second_call, transport)
            transport.resume_reading()
            await arrive(seen, peer, 2 * EMPTIED)
            return [seen.seen[:], len(calls)]

    assert same(scenario) == [["made", b"." * 2 * EMPTIED], 4 * EMPTIED]


def test_a_program_that_modifies_the_entry() -> None:
    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            selector: Any = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009
            fd = transport.get_extra_info("socket").fileno()
            peer.send(b"x")
            arrived(transport)
            key = selector.get_key(fd)
            assert key.events == 1
            selector.modify(fd, key.events, key.data)
            await soon(lambda: seen.has(1))
            return seen.seen[:]

    same(scenario)


def test_a_loop_that_runs_again() -> None:
    """An event is taken in the last turn of a run."""
    near, peer = tcp_pair()
    seen = Plain()
    with peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        for count in range(EMPTIED + 1, EMPTIED + 50):
            peer.send(b".")
            arrived(transport)
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.run_until_complete(soon(lambda count=count: seen.has(count)))  # type: ignore[misc]
        transport.abort()
        loop.run_until_complete(turns())


def test_an_exception_ends_the_turn() -> None:
    """Before the reader is called: its handle stays in the queue."""
    near, peer = tcp_pair()
    seen = Plain()

    def interrupt() -> None:
        loop.remove_reader(first)
        raise KeyboardInterrupt

    first, second = socket.socketpair()
    with first, second, peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        for count in range(EMPTIED + 1, EMPTIED + 20):
            second.send(b"x")
            peer.send(b".")
            arrived(transport)
            loop.add_reader(first, interrupt)
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
            loop.run_until_complete(soon(lambda count=count: seen.has(count)))  # type: ignore[misc]
        transport.abort()
        loop.run_until_complete(turns())


@pytest.mark.parametrize("end", [False, True])
def test_a_loop_that_is_driven_from_outside(end: bool) -> None:
    """By a program that lets it turn when the fd of its selector is readable."""
    near, peer = tcp_pair()
    seen = Plain()
    with peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        transport.max_size = 100
        selector: Any = getattr(loop, "_selector")  # noqa: B009
        peer.send(b"x" * (50 if end else 1000))
        if end:
            peer.shutdown(socket.SHUT_WR)
        arrived(transport)
        while not (seen.lost() if end else seen.has(EMPTIED + 1000)):
            assert select.select([selector.fileno()], [], [], 20)[0]
            loop.call_soon(loop.stop)
            loop.run_forever()
        transport.abort()
        loop.run_until_complete(turns())


def test_an_urgent_byte_alone_is_kept() -> None:
    """No read is made, which would discard it."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connected(seen) as (transport, peer):
            fd = transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(fd)) as same_socket:
                peer.send(b"!", socket.MSG_OOB)
                assert select.select([], [], [same_socket], 20)[2]
                await turns(20)
                urgent = same_socket.recv(1, socket.MSG_OOB)
            peer.send(b"x")
            await soon(lambda: seen.has(1))
            return [urgent, seen.seen[:]]

    assert same(scenario) == [b"!", [b"x"]]


def test_an_owner_that_gets_signals_for_urgent_data() -> None:
    """It may take the urgent byte before the loop looks, which would then not know where a read ends."""

    async def scenario() -> list[Any]:
        seen = Plain()
        async with connection(seen, tcp=True) as (transport, peer):
            fd = transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(fd)) as same_socket:
                fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
                signal.signal(signal.SIGURG, lambda *_: same_socket.recv(1, socket.MSG_OOB))
                try:
                    await arrive(seen, peer)
                    for data, flags in (b"abc", 0), (b"!", socket.MSG_OOB), (b"def", 0):
                        peer.send(data, flags)
                    arrived(transport)
                    await soon(lambda: seen.has(EMPTIED + 6))
                finally:
                    signal.signal(signal.SIGURG, signal.SIG_DFL)
            return seen.seen[:]

    same(scenario)


def test_an_exception_before_the_read() -> None:
    class Interrupted(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            if interrupts:
                interrupts.pop()
                raise KeyboardInterrupt
            return super().get_buffer(sizehint)

    near, peer = tcp_pair()
    interrupts: list[int] = []
    seen = Interrupted(size=100)
    with peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        interrupts.append(1)
        peer.send(b"x")
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(soon(lambda: seen.has(EMPTIED + 1)))
        transport.abort()
        loop.run_until_complete(turns())


def test_a_turn_in_a_callback(caplog: pytest.LogCaptureFixture) -> None:
    """The connection's context is entered already: an error is logged, and the reader is not called."""

    class Nested(Plain):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"1":
                peer.send(b"2")
                arrived(self.transport)
                getattr(loop, "_run_once")()  # noqa: B009

    near, peer = tcp_pair()
    seen = Nested()
    with peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        peer.send(b"1")
        loop.run_until_complete(soon(lambda: seen.has(EMPTIED + 2)))
        assert "cannot enter context" in caplog.text
        transport.abort()
        loop.run_until_complete(turns())


class Wrapper:
    """A selector that hands on all calls to another."""

    def __init__(self, selector: Any) -> None:
        self.selector = selector

    def __getattr__(self, name: str) -> Any:
        return getattr(self.selector, name)


@pytest.mark.parametrize("attribute", ["_ready", "_selector"])
def test_a_part_of_the_loop_that_is_replaced(attribute: str) -> None:
    """In the turn that has taken the event, before its reader is called."""
    near, peer = tcp_pair()
    seen = Plain()

    def replace() -> None:
        loop.remove_reader(first)
        if attribute == "_ready":
            getattr(loop, attribute).clear()
        else:
            setattr(loop, attribute, Wrapper(getattr(loop, attribute)))

    first, second = socket.socketpair()
    with first, second, peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:
        transport = loop.run_until_complete(connect(loop, seen, near))
        loop.run_until_complete(arrive(seen, peer))
        transport.max_size = 100
        second.send(b"x")
        peer.send(b"x" * 1000)
        arrived(transport)
        loop.add_reader(first, replace)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        loop.run_until_complete(soon(lambda: seen.has(EMPTIED + 1000)))
        transport.abort()
        loop.run_until_complete(turns())


def test_an_fd_that_becomes_another_file() -> None:
    """The transport does not get the other's data."""

    async def scenario() -> list[Any]:
        seen = Plain()
        near, far = tcp_pair()
        async with connected(seen) as (transport, peer):
            transport.max_size = 100
            fd = transport.get_extra_info("socket").fileno()

            class Replacing(Plain):
                def data_received(self, data: bytes) -> None:
                    super().data_received(data)
                    os.dup2(near.fileno(), fd)

            transport.set_protocol(replacing := Replacing())
            peer.send(b"x" * 1000)
            far.send(b"secret")
            arrived(transport)
            await soon(lambda: replacing.has(100))
            await asyncio.sleep(0.01)
            near.close()
            far.close()
            return replacing.seen[:]

    assert on("pyepoll", scenario) == [b"x" * 100]


class Random(Plain):
    """Chooses by chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.received = bytearray()

    def keep(self, data: bytes) -> None:
        self.received += data
        action = self.chance.randrange(40)
        if action == 0:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self.chance.random() / 1000, self.transport.resume_reading)
        elif action == 1:
            self.transport.pause_reading()
            self.transport.resume_reading()
        elif action == 2:
            self.transport.max_size = self.chance.choice([10, 1000, LIMIT])
        elif action == 3:
            self.transport.write(b"x" * self.chance.choice([1, 1000, 1 << 20]))


@pytest.mark.parametrize("seed", range(8))
def test_all_data_arrive(seed: int) -> None:
    """Eight connections, whose peers send pieces of many sizes from a thread."""
    chance = random.Random(seed)
    pieces = [[chance.choice([1, 10, 1000, 10_000, 300_000]) for _ in range(60)] for _ in range(8)]
    sent = [b"".join(bytes([n % 251]) * size for n, size in enumerate(sizes)) for sizes in pieces]

    def send(peer: socket.socket, sizes: list[int]) -> None:
        for n, size in enumerate(sizes):
            peer.sendall(bytes([n % 251]) * size)
            if size < 1000:
                time.sleep(0.0005)
        peer.shutdown(socket.SHUT_WR)

    def drain(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while peer.recv(1 << 16):
                pass

    async def scenario() -> list[bytes]:
        async with contextlib.AsyncExitStack() as stack:
            all_seen = [Random(chance) for _ in pieces]
            threads = []
            for seen, sizes in zip(all_seen, pieces, strict=True):
                _, peer = await stack.enter_async_context(connection(seen, tcp=True))
                peer.setblocking(True)
                threads += [threading.Thread(target=send, args=(peer, sizes))]
                threads += [threading.Thread(target=drain, args=(peer,))]
            for thread in threads:
                thread.start()
            await soon(lambda: all(seen.lost() for seen in all_seen))
            for thread in threads:
                await asyncio.to_thread(thread.join)
            return [bytes(seen.received) for seen in all_seen]

    assert on("pyepoll", scenario) == sent
