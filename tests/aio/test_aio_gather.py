"""Gathered writes: write() leaves its data to the end of the turn; calls that could tell send it first."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loops import Plain, Scenario, T, complaints, connection, logged, small_buffers, soon, turns
from support.processes import run

from pyepoll import aio

BIG = bytes(range(256)) * 4 * 1024


def gathering(scenario: Scenario[T], *, gather: bool = True, debug: bool = False) -> T:
    def factory() -> aio.EventLoop:
        return aio.new_event_loop(gather_writes=gather)

    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(scenario())


@contextlib.contextmanager
def stopped_loop() -> Iterator[tuple[aio.EventLoop, Any, socket.socket]]:
    """A loop that does not run, a transport of it, and the peer."""
    loop = aio.new_event_loop()
    near, peer = socket.socketpair()
    peer.setblocking(False)
    try:
        transport: Any = loop.run_until_complete(loop.create_connection(Plain, sock=near))[0]
        yield loop, transport, peer
        transport.abort()
        loop.run_until_complete(turns())
    finally:
        loop.close()
        peer.close()


def arrived(peer: socket.socket) -> bytes:
    """The data that the kernel has for the peer now."""
    data = b""
    while True:
        try:
            more = os.read(peer.fileno(), 1 << 20)
        except BlockingIOError:
            return data
        if not more:
            return data
        data += more


def test_writes_are_sent_at_the_end_of_the_turn() -> None:
    async def scenario() -> list[bytes]:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"head ")
            transport.writelines([b"body ", b"", bytearray(b"end")])
            before = arrived(peer)
            await asyncio.sleep(0)
            return [before, arrived(peer)]

    assert gathering(scenario) == [b"", b"head body end"]


def test_the_writes_of_a_turn_are_one_system_call() -> None:
    """A datagram-like socket shows it: each system call sends one message."""

    async def scenario() -> list[bytes]:
        near, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        peer.setblocking(False)
        loop: Any = asyncio.get_running_loop()
        transport = loop._make_socket_transport(near, Plain())
        await turns()
        with peer:
            for number in range(5):
                transport.write(b"%d" % number)
            await asyncio.sleep(0)
            first = peer.recv(100)
            transport.abort()
            await turns()
            return [first, peer.recv(100)]

    assert gathering(scenario) == [b"01234", b""]
    assert gathering(scenario, gather=False) == [b"0", b"1"]


@pytest.mark.parametrize("size", [4095, 4096, 4097, 60_000])
def test_gathered_writes_are_sent_in_order_whatever_their_size(size: int) -> None:
    """Up to 4 KiB they are copied into one piece: flush.c."""

    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"head")
            transport.writelines([BIG[4 : size - 4], b"tail"])
            await asyncio.sleep(0)
            return arrived(peer)

    assert gathering(scenario) == b"head" + BIG[4 : size - 4] + b"tail"


@pytest.mark.parametrize(("gather", "debug"), [(False, False), (True, True)])
def test_without_gathering_and_in_debug_mode_write_sends(gather: bool, debug: bool) -> None:
    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"now")
            return arrived(peer)

    assert gathering(scenario, gather=gather, debug=debug) == b"now"


def test_after_a_change_to_debug_mode_write_sends() -> None:
    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"before ")
            asyncio.get_running_loop().set_debug(True)
            transport.write(b"after")
            return peer.recv(100, socket.MSG_DONTWAIT)

    assert gathering(scenario) == b"before after"


def test_outside_a_running_loop_write_sends() -> None:
    with stopped_loop() as (_, transport, peer):
        transport.write(b"now")
        assert arrived(peer) == b"now"


def test_on_a_socket_of_another_class_write_sends() -> None:
    """Its methods see each write, and the failure of one is seen by the next: CPython's own tests do."""

    sizes: list[int] = []

    class Counts(socket.socket):
        def send(self, data: Any, flags: int = 0) -> int:
            sizes.append(len(data))
            if len(sizes) == 3:
                raise BrokenPipeError
            return super().send(data, flags)

    def counting(sock: socket.socket) -> socket.socket:
        return Counts(fileno=sock.detach())

    async def scenario() -> list[Any]:
        async with connection(Plain(), sock=counting) as (transport, peer):
            transport.write(b"a")
            transport.write(b"bc")
            sent = arrived(peer)
            transport.write(b"def")
            return [sent, sizes, transport.is_closing()]

    assert gathering(scenario) == [b"abc", [1, 2, 3], True]


@pytest.mark.parametrize("high", [0, 10, None])
def test_above_the_high_water_mark_write_sends(high: int | None) -> None:
    async def scenario() -> list[int]:
        async with connection(Plain()) as (transport, peer):
            transport.set_write_buffer_limits(high)
            limit = transport.get_write_buffer_limits()[1]
            transport.write(bytes(limit))
            before = len(arrived(peer))
            transport.write(b"!")
            return [before, len(arrived(peer)) - limit]

    assert gathering(scenario) == [0, 1]


FLUSHES: dict[str, Callable[[Any], object]] = {
    "abort": lambda transport: transport.abort(),
    "close": lambda transport: transport.close(),
    "write_eof": lambda transport: transport.write_eof(),
    "set_protocol": lambda transport: transport.set_protocol(Plain()),
    "set_write_buffer_limits": lambda transport: transport.set_write_buffer_limits(5),
    "get_write_buffer_size": lambda transport: transport.get_write_buffer_size(),
    "make_empty_waiter": lambda transport: transport._make_empty_waiter(),
    "fatal error": lambda transport: transport._fatal_error(OSError()),
    "fileno": lambda transport: transport.get_extra_info("socket").fileno(),
    "dup": lambda transport: transport.get_extra_info("socket").dup().close(),
    "shutdown": lambda transport: transport.get_extra_info("socket").shutdown(socket.SHUT_WR),
    "setsockopt": lambda transport: transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16
    ),
}


@pytest.mark.parametrize("how", FLUSHES)
def test_calls_that_could_tell_send_first(how: str) -> None:
    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"first")
            assert arrived(peer) == b""
            FLUSHES[how](transport)
            transport._reset_empty_waiter()
            return arrived(peer)

    assert gathering(scenario) == b"first"


def test_sendfile_sends_pending_data_first(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")

    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"head ")
            with path.open("rb") as file:
                await asyncio.get_running_loop().sendfile(transport, file)
            transport.write(b" tail")
            transport.close()
            await turns()
            return arrived(peer)

    assert gathering(scenario) == b"head file tail"


def test_fork_sends_pending_data_first() -> None:
    """Once: the child has no copy that it could send as well."""

    async def scenario() -> list[bytes]:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"once")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # There may be other threads.
                child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = int(transport.get_write_buffer_size() != 0)
                finally:
                    os._exit(status)
            before = arrived(peer)
            _, status = os.waitpid(child, 0)
            assert status == 0
            return [before, arrived(peer)]

    assert gathering(scenario) == [b"once", b""]


def test_after_a_fork_the_turn_sends_at_once() -> None:
    """A child that writes a reply may end in os._exit(), after which no code runs."""

    async def scenario() -> list[bytes]:
        async with connection(Plain()) as (transport, peer):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # There may be other threads.
                child = os.fork()
            if child == 0:
                try:
                    transport.write(b"from the child")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            received = [arrived(peer)]
            await turns(1)
            transport.write(b"in the next turn")
            return [*received, arrived(peer)]

    assert gathering(scenario) == [b"from the child", b""]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_leaves_the_turn_sends_first(error: type[BaseException]) -> None:
    with stopped_loop() as (loop, transport, peer):

        def leave() -> None:
            transport.write(b"before")
            raise error

        loop.call_soon(leave)
        with pytest.raises(error):
            loop.run_forever()
        assert arrived(peer) == b"before"


def test_ctrl_c_sends_first() -> None:
    async def scenario(transport: Any) -> None:
        transport.write(b"before")
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stopped_loop() as (loop, transport, peer):
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(scenario(transport))
            assert arrived(peer) == b"before"
    finally:
        signal.signal(signal.SIGINT, before)


def test_stop_sends_first() -> None:
    with stopped_loop() as (loop, transport, peer):
        loop.call_soon(transport.write, b"before")
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert arrived(peer) == b"before"


def test_a_subclass_with_its_own_turn_gathers_too() -> None:
    class Own(aio.EventLoop):
        def _run_once(self) -> None:
            super()._run_once()

    async def scenario() -> list[bytes]:
        async with connection(Plain()) as (transport, peer):
            transport.write(b"data")
            before = arrived(peer)
            await asyncio.sleep(0)
            return [before, arrived(peer)]

    with asyncio.Runner(loop_factory=Own) as runner:
        assert runner.run(scenario()) == [b"", b"data"]


def test_an_error_of_sending_is_reported_once() -> None:
    async def scenario() -> list[Any]:
        complained = complaints()
        async with connection(seen := Plain()) as (transport, peer):
            transport.pause_reading()
            peer.close()
            transport.write(b"1")
            transport.write(b"2")
            closing = transport.is_closing()
            await soon(seen.lost)
            transport.write(b"3")
            return [closing, seen.seen, complained]

    assert gathering(scenario) == [False, ["made", ("lost", "BrokenPipeError: [Errno 32] Broken pipe")], []]


def test_a_pausing_protocol_may_write_and_abort_at_the_end_of_the_turn() -> None:
    """pause_writing() is called while the loop sends for all transports."""

    async def scenario() -> list[Any]:
        async with connection(other := Plain()) as (second, peer):

            class Acts(Plain):
                def pause_writing(self) -> None:
                    super().pause_writing()
                    second.write(b"paused")
                    self.transport.abort()

            async with connection(seen := Acts(), sock=small_buffers) as (transport, _):
                transport.set_write_buffer_limits(high=1 << 20)
                transport.write(bytes(1 << 20))
                transport.set_write_buffer_limits(high=0)
                await turns(3)
                return [arrived(peer), list(seen.seen), list(other.seen)]

    assert gathering(scenario) == [b"paused", ["made", "pause", ("lost", None)], ["made"]]


def test_writes_of_another_thread_are_sent_at_once() -> None:
    """Against asyncio's rules, but such programs work as long as no data has to wait."""

    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            thread = threading.Thread(target=transport.write, args=[b"data"])
            thread.start()
            thread.join()
            return arrived(peer)

    assert gathering(scenario) == b"data"


@pytest.mark.parametrize("name", ["write", "writelines"])
def test_debug_mode_reports_a_write_of_another_thread(name: str) -> None:
    async def scenario() -> list[Any]:
        async with connection(Plain()) as (transport, peer):
            data: Any = b"data" if name == "write" else [b"data"]
            said: list[str] = []

            def write() -> None:
                try:
                    getattr(transport, name)(data)
                except RuntimeError as error:
                    said.append(str(error))

            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            return [said, arrived(peer)]

    said, data = gathering(scenario, debug=True)
    assert len(said) == 1
    assert said[0].startswith("Non-thread-safe operation")
    assert data == b""


def test_pending_data_keeps_the_transport_alive() -> None:
    async def scenario() -> bytes:
        near, peer = socket.socketpair()
        peer.setblocking(False)
        loop: Any = asyncio.get_running_loop()
        transport = (await loop.create_connection(asyncio.Protocol, sock=near))[0]
        del near
        loop._remove_reader(transport._sock_fd)
        transport.write(b"data")
        del transport
        gc.collect()
        with peer, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            await turns()
            return arrived(peer)

    assert gathering(scenario) == b"data"


def test_many_small_writes_are_linear_in_system_calls() -> None:
    """IOV_MAX pieces go at a time, and no data is copied again and again."""
    said = run("""
        import asyncio, socket, sys
        from pyepoll import aio

        async def main():
            near, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.setblocking(False)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            loop = asyncio.get_running_loop()
            transport = loop._make_socket_transport(near, asyncio.Protocol())
            await asyncio.sleep(0)
            for number in range(8000):
                transport.write(b"%7d" % number)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            messages = []
            peer.setblocking(False)
            while True:
                try:
                    messages.append(peer.recv(1 << 20))
                except BlockingIOError:
                    break
            print(len(messages), b"".join(messages) == b"".join(b"%7d" % n for n in range(8000)))
            transport.abort()
            peer.close()
            await asyncio.sleep(0)

        aio.run(main())
    """)
    assert said.split() == ["8", "True"]


def test_the_transport_is_one_of_asyncios() -> None:
    async def scenario() -> None:
        async with connection(Plain()) as (transport, _):
            assert isinstance(transport, asyncio.Transport)
            assert type(transport) is aio.SocketTransport
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock is transport.get_extra_info("socket")
            assert vars(type(transport))["_extra"].__get__(transport)["socket"] is sock

    gathering(scenario)


@pytest.mark.parametrize("gather", [True, False])
def test_writelines_pauses_the_protocol(gather: bool) -> None:
    """CVE-2024-12254."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), sock=small_buffers) as (transport, _):
            transport.writelines([BIG])
            await asyncio.sleep(0)
            return seen.seen

    assert gathering(scenario, gather=gather)[:2] == ["made", "pause"]


def test_writelines_after_close_is_ignored() -> None:
    async def scenario() -> list[Any]:
        with logged() as warned:
            async with connection(Plain()) as (transport, peer):
                transport.close()
                for _ in range(7):
                    transport.writelines([b"data", b""])
                return [arrived(peer), len(warned)]

    # asyncio counts close() as the first of five.
    assert gathering(scenario) == [b"", 3]


def test_writelines_with_a_wrong_item_writes_nothing() -> None:
    async def scenario() -> bytes:
        async with connection(Plain()) as (transport, peer):
            wrong: Any = [b"data", "text"]
            with pytest.raises(TypeError):
                transport.writelines(wrong)
            await asyncio.sleep(0)
            return arrived(peer)

    assert gathering(scenario) == b""


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("size", [10, 1 << 20])
def test_mutable_data_is_sent_as_it_was(gather: bool, size: int) -> None:
    async def scenario() -> bool:
        async with connection(Plain(), sock=small_buffers) as (transport, peer):
            data = bytearray(b"a" * size)
            transport.write(data)
            data[:] = b"b" * size
            words = memoryview(bytearray(b"c" * size)).cast("H")
            transport.write(words)
            words[:] = memoryview(b"d" * size).cast("H")
            data.clear()  # No export is left.
            got = b""
            while len(got) < 2 * size:
                await asyncio.sleep(0)
                got += arrived(peer)
            return got == b"a" * size + b"c" * size

    assert gathering(scenario, gather=gather)


def test_a_fork_in_a_flush_is_no_second_flush() -> None:
    """The hook before fork() runs inside the end of a turn."""

    async def scenario() -> list[Any]:
        async with connection(other := Plain()) as (second, peer):
            loop: Any = asyncio.get_running_loop()

            class Forks(Plain):
                def pause_writing(self) -> None:
                    second.write(b"once")
                    loop._pending_writes.flush()

            async with connection(Forks(), sock=small_buffers) as (transport, _):
                second.write(b"first ")
                transport.set_write_buffer_limits(high=1 << 20)
                transport.writelines([BIG[: 1 << 19]])
                transport._high_water = 0
                await turns(3)
                return [arrived(peer), list(other.seen)]

    assert gathering(scenario) == [b"first once", ["made"]]
