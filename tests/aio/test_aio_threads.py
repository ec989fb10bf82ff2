"""A loop in each of several threads, interpreters and processes: none minds the others."""

import asyncio
import socket
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.effort import Effort
from support.fds import open_fds
from support.interpreters import run_in_interpreter
from support.loops import Buffered, Keeps, Plain, connection, on, receive, soon
from support.processes import in_child, run

from pyepoll import aio

PROGRAM = """
import asyncio, gc, socket
from pyepoll import aio

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    a, b = socket.socketpair()
    b.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(Echo, sock=a)
    assert type(transport) is aio.SocketTransport
    for number in range(50):
        data = bytes([number]) * (number + 1)
        await loop.sock_sendall(b, data)
        assert await loop.sock_recv(b, 100) == data
    transport.write(bytearray(b"other"))
    assert await loop.sock_recv(b, 100) == b"other"
    if {close}:
        transport.close()
    b.close()
    await asyncio.sleep(0.01)

for _ in range(2):
    aio.run(main())
"""


async def chat(number: int, rounds: int, kind: type[Keeps]) -> int:
    """Messages both ways; each is this thread's."""
    async with connection(seen := kind()) as (transport, peer):
        sent = b""
        for turn in range(rounds):
            data = bytes([number]) * (turn % 300 + 1)
            sent += data
            peer.send(data)
            transport.write(data)
            assert await receive(peer, len(data)) == data
            if turn % 10 == 9:
                await soon(lambda: seen.has(len(sent)))  # noqa: B023
        await soon(lambda: seen.has(len(sent)))
        assert seen.seen[1] == sent
        return len(sent)


def test_each_thread_can_run_a_loop(pool: ThreadPoolExecutor, effort: Effort) -> None:
    threads, rounds = 6, effort(100, 3000)
    barrier = threading.Barrier(threads)

    def work(number: int) -> int:
        barrier.wait()
        return on("pyepoll", lambda: chat(number, rounds, Buffered if number % 2 else Plain))

    assert len(set(pool.map(work, range(threads)))) == 1


def test_a_server_and_clients_run_in_threads(pool: ThreadPoolExecutor, effort: Effort) -> None:
    rounds = effort(50, 2000)
    addresses: list[Any] = []
    ready, done = threading.Event(), threading.Event()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            addresses.append(server.sockets[0].getsockname())
            ready.set()
            await loop.run_in_executor(None, done.wait)

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection(*addresses[0])
        for turn in range(rounds):
            data = b"%d %d\n" % (number, turn)
            writer.write(data)
            assert await reader.readline() == data
        writer.close()
        await writer.wait_closed()

    serving = pool.submit(aio.run, serve())
    ready.wait()
    try:
        for asking in [pool.submit(aio.run, ask(number)) for number in range(4)]:
            asking.result()
    finally:
        done.set()
        serving.result()


def test_reads_of_all_threads_share_no_buffer(pool: ThreadPoolExecutor, effort: Effort) -> None:
    """Large pieces, possibly into one spare buffer: no thread sees another's bytes."""
    threads, size = 4, effort(3_000_000, 100_000_000)

    async def flow(number: int) -> set[int]:
        kinds: set[int] = set()
        count = 0

        class Counts(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                nonlocal count
                count += len(data)
                kinds.update(data[:: max(len(data) // 50, 1)])

        near, peer = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Counts, sock=near)
        peer.setblocking(False)
        await loop.sock_sendall(peer, bytes([number]) * size)
        await soon(lambda: count == size)
        transport.abort()
        peer.close()
        await asyncio.sleep(0)
        return kinds

    barrier = threading.Barrier(threads)

    def work(number: int) -> set[int]:
        barrier.wait()
        return aio.run(flow(number))

    assert list(pool.map(work, range(threads))) == [{number} for number in range(threads)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="an interpreter without threads")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "left open"])
def test_subinterpreters_each_run_a_loop(close: bool, effort: Effort) -> None:
    """One after another, each with a loop of its own."""
    program = PROGRAM.format(close=close)
    if not close:
        program = "import warnings; warnings.simplefilter('ignore')\n" + program
    run_in_interpreter(program)
    before = open_fds().keys()
    for _ in range(effort(2, 20)):
        run_in_interpreter(program)
    assert open_fds().keys() == before


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="asyncio itself crashes in interpreters with GILs of their own"
)
def test_interpreters_run_loops_in_parallel(effort: Effort) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(effort(1, 20)):
                run_in_interpreter(PROGRAM.format(close=True))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert on("pyepoll", lambda: chat(7, 5, Plain)) == 15
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_child_has_loops_of_its_own() -> None:
    """A fork between two runs: connections of the parent's loop go on as if nothing had been."""
    loop = aio.new_event_loop()

    async def connect() -> tuple[Any, Plain, socket.socket]:
        near, peer = socket.socketpair()
        seen = Plain()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: seen, sock=near)
        return transport, seen, peer

    transport, seen, peer = loop.run_until_complete(connect())
    assert in_child(lambda: exec(PROGRAM.format(close=True), {"__name__": "child"})) == ""
    assert in_child(lambda: on("pyepoll", lambda: chat(1, 20, Plain))) == ""

    async def more() -> None:
        peer.send(b"data")
        await soon(lambda: seen.has(4))
        transport.write(b"answer")
        await asyncio.sleep(0)
        assert peer.recv(10) == b"answer"
        transport.close()
        await soon(seen.lost)

    loop.run_until_complete(more())
    loop.close()
    peer.close()


def test_a_child_of_a_running_loop_leaves_the_parent_unchanged() -> None:
    """A child's use of its copies of the connections changes nothing in the parent but the bytes."""

    async def main() -> list[Any]:
        async with connection(seen := Plain()) as (_, peer):
            peer.send(b"data")
            await soon(lambda: seen.has(4))

            def child() -> None:
                # The running loop is not the child's.
                with pytest.raises(RuntimeError, match="no running event loop"):
                    asyncio.get_running_loop()
                on("pyepoll", lambda: chat(1, 10, Plain))

            assert in_child(child) == ""
            peer.send(b"more")
            await soon(lambda: seen.has(8))
            return seen.seen

    assert on("pyepoll", main)[1] == b"datamore"


def test_exit_while_a_loop_runs_is_clean() -> None:
    """The interpreter ends while a loop runs in a thread, and while transports of a stopped one are open."""
    said = run(
        """
        import asyncio, socket, threading, time, warnings
        from pyepoll import aio
        warnings.simplefilter("ignore")

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
            def data_received(self, data):
                self.transport.write(data)

        ready = threading.Event()

        async def chat():
            a, b = socket.socketpair()
            b.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_connection(Echo, sock=a)
            ready.set()
            while True:
                await loop.sock_sendall(b, b"data")
                await loop.sock_recv(b, 100)

        threading.Thread(target=aio.run, args=[chat()], daemon=True).start()
        ready.wait()
        loop = aio.new_event_loop()
        async def connect():
            a, b = socket.socketpair()
            return await asyncio.get_running_loop().create_connection(Echo, sock=a), b
        kept = loop.run_until_complete(connect())
        time.sleep(0.05)
        print("ends")
        """
    )
    assert said.split() == ["ends"]


def test_the_import_leaves_the_gil_off() -> None:
    """The import of the module leaves a free-threaded interpreter without its GIL."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("a build with a GIL")
    assert run("import sys, pyepoll.aio; print(sys._is_gil_enabled())").split() == ["False"]
