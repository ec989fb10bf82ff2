"""Datagrams that wait to be sent, and asyncio's faults with them; turns and contexts."""

import array
import asyncio
import contextvars
import gc
import os
import socket
import sys
import sysconfig
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.leaks import leaks
from support.loops import on, soon, turns
from support.processes import run
from test_aio_datagram import Datagrams, endpoint, received


@asynccontextmanager
async def full_queue(seen: Datagrams) -> AsyncIterator[tuple[Any, socket.socket, int]]:
    """A transport whose peer takes no more, the peer, and how many datagrams it has taken: b"0", b"1" ..."""
    near, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport: Any = (await loop.create_datagram_endpoint(lambda: seen, sock=near))[0]
    sent = 0
    while transport.get_write_buffer_size() == 0:
        transport.sendto(b"%d" % sent)
        sent += 1
    try:
        yield transport, peer, sent - 1
    finally:
        peer.close()
        transport.abort()
        await soon(lambda: transport.get_protocol() is None)


async def received_in_turns(peer: socket.socket, count: int) -> list[bytes]:
    """So many datagrams."""
    kept: list[bytes] = []

    def enough() -> bool:
        kept.extend(received(peer))
        return len(kept) >= count

    await soon(enough)
    return kept


def test_the_queue_is_sent_in_order_when_the_peer_reads() -> None:
    async def scenario() -> None:
        async with full_queue(Datagrams()) as (transport, peer, taken):
            count = taken + 100
            for number in range(taken + 1, count):
                transport.sendto(b"%d" % number)
            kept = await received_in_turns(peer, count)
            assert kept == [b"%d" % number for number in range(count)]

    on("pyepoll", scenario)


def test_the_size_of_the_queue_is_zero_when_it_is_empty() -> None:
    """asyncio before 3.14 counts 8 bytes for each datagram that it never takes off: it does not resume."""

    async def scenario() -> None:
        async with full_queue(seen := Datagrams()) as (transport, peer, taken):
            transport.set_write_buffer_limits(high=50, low=10)
            for _ in range(20):
                transport.sendto(b"")
            assert transport.get_write_buffer_size() == 20 * 8 + 8 + len(b"%d" % taken)
            assert seen.seen == ["pause"]
            await received_in_turns(peer, taken + 21)
            await soon(lambda: transport.get_write_buffer_size() == 0)
            assert seen.seen == ["pause", "resume"]

    on("pyepoll", scenario)


def test_the_queue_has_the_bytes_as_they_were() -> None:
    async def scenario() -> None:
        async with full_queue(Datagrams()) as (transport, peer, taken):
            data, doubles = bytearray(b"data"), array.array("d", [1, 2])
            expected = doubles.tobytes()
            before = transport.get_write_buffer_size()
            transport.sendto(data)
            transport.sendto(memoryview(data))
            transport.sendto(memoryview(doubles))
            assert transport.get_write_buffer_size() - before == 4 + 4 + 16 + 3 * 8
            data[:] = b"!!!!"
            doubles[0] = 7
            kept = await received_in_turns(peer, taken + 4)
            assert kept[-3:] == [b"data", b"data", expected]

    on("pyepoll", scenario)


def test_closing_sends_the_queue_first() -> None:
    async def scenario() -> None:
        async with full_queue(seen := Datagrams()) as (transport, peer, taken):
            transport.sendto(b"last")
            transport.close()
            await turns()
            assert not seen.lost()
            kept = await received_in_turns(peer, taken + 2)
            await soon(seen.lost)
            assert kept[-1] == b"last"
            assert seen.seen == [("lost", None)]

    on("pyepoll", scenario)


def test_abort_drops_the_queue() -> None:
    async def scenario() -> None:
        async with full_queue(seen := Datagrams()) as (transport, peer, taken):
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await soon(seen.lost)
            assert len(received(peer)) == taken

    on("pyepoll", scenario)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_protocol_may_end_it_when_writing_resumes(end: str) -> None:
    class Ends(Datagrams):
        def resume_writing(self) -> None:
            super().resume_writing()
            getattr(self.transport, end)()

    async def scenario() -> None:
        async with full_queue(seen := Ends()) as (transport, peer, taken):
            transport.set_write_buffer_limits(high=1)
            await received_in_turns(peer, taken + 1)
            await soon(seen.lost)
            await turns()
            assert seen.seen == ["pause", "resume", ("lost", None)]

    on("pyepoll", scenario)


def test_an_error_with_a_queued_datagram_is_reported() -> None:
    async def scenario() -> None:
        async with full_queue(seen := Datagrams()) as (transport, peer, _):
            transport.sendto(b"more")
            peer.close()
            await soon(lambda: len(seen.seen) >= 2)
            assert seen.seen[0].startswith("ConnectionRefusedError") or seen.seen[0].startswith(
                "ConnectionReset"
            )
            await soon(lambda: transport.get_write_buffer_size() == 0)
            assert not transport.is_closing()

    on("pyepoll", scenario)


def test_a_busy_network_fills_the_queue() -> None:
    """Loopback never refuses a datagram: the kernel is made to, for C and its own methods."""
    program = """
    import asyncio, errno, socket
    from pyepoll import aio
    from support.seccomp import deny

    async def main():
        loop = asyncio.get_running_loop()
        kept = []
        class Kept(asyncio.DatagramProtocol):
            def error_received(self, exc):
                kept.append(exc)
        transport, _ = await loop.create_datagram_endpoint(Kept, local_addr=("127.0.0.1", 0))
        other, _ = await loop.create_datagram_endpoint(Kept, remote_addr=("127.0.0.1", 9))
        data = bytearray(b"data")
        deny("sendto", errno.EAGAIN)
        transport.sendto(data, ("127.0.0.1", 9))
        data.clear()
        transport.sendto(b"second", ("127.0.0.1", 9))
        other.sendto(b"third")
        print(transport.get_write_buffer_size(), other.get_write_buffer_size(), kept)
        for closed in (transport, other):
            closed.close()
        await asyncio.sleep(0.01)
        print(transport.get_write_buffer_size(), other.get_write_buffer_size(), kept)
        for closed in (transport, other):
            closed.abort()
        await asyncio.sleep(0)

    aio.run(main())
    """
    assert run(program) == "26 13 []\n26 13 []\n"


@pytest.mark.parametrize("family", ["IPv4", "IPv6", "Unix"])
def test_a_busy_peer_does_not_starve_another(family: str) -> None:
    """All have come before the loop looks: some of the first are received, then the one of the second."""

    async def scenario() -> None:
        order: list[str] = []

        class Notes(Datagrams):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                order.append(data.decode())

        async with endpoint(Notes(), family) as (busy, flood), endpoint(Notes(), family) as (other, peer):
            flood.setblocking(True)
            count = 9 if family == "Unix" else 100  # As many as a Unix socket takes.
            for _ in range(count):
                flood.sendto(b"busy", busy.get_extra_info("sockname"))
            peer.sendto(b"other", other.get_extra_info("sockname"))
            await soon(lambda: len(order) == count + 1)
        assert 2 <= order.index("other") <= 16

    on("pyepoll", scenario)


VARIABLE = contextvars.ContextVar("VARIABLE", default="none")


def test_the_context_is_that_of_the_endpoint() -> None:
    """asyncio reads in the context of the task that resumed, and of the one that filled the queue."""

    class Looks(Datagrams):
        def look(self, call: str) -> None:
            self.seen.append((call, VARIABLE.get()))

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.look("made")

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.look("received")
            VARIABLE.set("leaked")

        def pause_writing(self) -> None:
            pass  # Called in the context of the task that filled the queue, as in asyncio.

        def resume_writing(self) -> None:
            self.look("resume")

        def connection_lost(self, exc: Exception | None) -> None:
            self.look("lost")

    async def as_a_request(call: Any, *args: Any) -> None:
        VARIABLE.set("request")
        call(*args)

    async def scenario() -> None:
        VARIABLE.set("endpoint")
        async with full_queue(seen := Looks()) as (transport, peer, taken):
            VARIABLE.set("later")
            await asyncio.create_task(as_a_request(transport.pause_reading))
            await asyncio.create_task(as_a_request(transport.resume_reading))
            peer.send(b"data")
            await soon(lambda: ("received", "endpoint") in seen.seen)
            transport.set_write_buffer_limits(high=1)
            await received_in_turns(peer, taken + 1)
            await soon(lambda: transport.get_write_buffer_size() == 0)
            await asyncio.create_task(as_a_request(transport.sendto, b"data"))
            await asyncio.create_task(as_a_request(transport.close))
            await soon(lambda: seen.seen[-1][0] == "lost")
            assert {value for _, value in seen.seen} == {"endpoint"}
            assert {call for call, _ in seen.seen} == {"made", "received", "resume", "lost"}

    on("pyepoll", scenario)


def test_the_fd_of_a_closed_socket_is_not_touched() -> None:
    async def scenario() -> None:
        async with endpoint(seen := Datagrams()) as (transport, peer):
            peer.sendto(b"data", transport.get_extra_info("sockname"))
            fd = transport.get_extra_info("socket").fileno()
            transport._sock.close()
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with (
                far,
                socket.socket(
                    fileno=near.detach() if near.fileno() == fd else os.dup(near.detach())
                ) as reused,
            ):
                assert reused.fileno() == fd
                far.send(b"not for us")
                transport._read_ready()
                transport.sendto(b"data", peer.getsockname())
                assert [text.partition("]")[0] for text in seen.seen] == ["OSError: [Errno 9"] * 2
                assert reused.recv(100) == b"not for us"
                far.setblocking(False)
                assert received(far) == []

    on("pyepoll", scenario)


def test_a_transport_that_is_dropped_warns_and_closes() -> None:
    async def scenario() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        transport: Any = (await loop.create_datagram_endpoint(Datagrams, sock=sock))[0]
        await turns()
        loop._remove_reader(sock)  # type: ignore[attr-defined]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            gc.collect()
        assert [str(what.message)[:27] for what in caught] == ["unclosed transport <Datagra"]
        assert sock.fileno() == -1

    on("pyepoll", scenario)


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="leaks a block of memory for each datagram endpoint of asyncio's own loop too",
)
def test_endpoints_leave_nothing_behind() -> None:
    async def once() -> None:
        async with endpoint(seen := Datagrams()) as (transport, peer):
            for data in (b"data", b"", bytes(9000)):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await soon(lambda: len(seen.seen) == 3)
            transport.sendto(bytearray(b"data"), seen.senders[0])
            transport.sendto(b"data", addr=peer.getsockname())
            transport.sendto(bytes(70_000), peer.getsockname())
            with pytest.raises(TypeError):
                transport.sendto("data")
        async with full_queue(Datagrams()) as (transport, peer, taken):
            await received_in_turns(peer, taken + 1)

    assert not leaks(lambda: on("pyepoll", once), times=30)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes in Python have no buffers")
def test_data_that_closes_the_socket_goes_nowhere() -> None:
    """Its fd may be another file's."""

    async def scenario() -> list[Any]:
        async with endpoint(seen := Datagrams(), connected=True) as (transport, _):
            sock = transport.get_extra_info("socket")._sock
            fd, (other, far) = sock.fileno(), socket.socketpair()

            class Closes(bytes):
                def __buffer__(self, flags: int) -> memoryview:
                    if sock.fileno() >= 0:
                        sock.close()
                        os.dup2(other.fileno(), fd)
                    return memoryview(b"data")

            transport.sendto(Closes())
            with other, far:
                far.setblocking(False)
                got = received(far)
            os.close(fd)
            return [got, list(seen.seen)]

    assert on("pyepoll", scenario) == [[], ["OSError: [Errno 9] Bad file descriptor"]]
