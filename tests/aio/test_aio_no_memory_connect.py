"""Steps of a connection that have no memory: they raise MemoryError, and leave no fd and nothing watched."""

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support.loops import Plain
from support.no_memory import MOST_ALLOCATIONS, without_memory

from pyepoll import aio

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

Step = Callable[[], object]


@pytest.fixture
def loop() -> Iterator[Any]:
    """The collector is off: it would need memory too, and finalizers."""
    gc.disable()
    with contextlib.closing(aio.new_event_loop()) as loop:
        loop.set_debug(False)
        yield loop
    gc.enable()


def run_turn(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def without_each_allocation(prepare: Callable[[], Step], undo: Callable[[], object]) -> int:
    """Let each allocation of a step fail in turn. How many failures the step has reported."""
    before, failed, row = len(os.listdir("/proc/self/fd")), 0, 0
    for start in range(MOST_ALLOCATIONS):
        step = prepare()
        done = without_memory(start, step)
        del step
        undo()
        assert len(os.listdir("/proc/self/fd")) == before, start
        failed, row = failed + (not done), row + 1 if done else 0
        if row == 10:  # The steps can do without some: they are not the end.
            return failed
    raise AssertionError("it never succeeds")


@pytest.mark.parametrize("port", ["made", "refused"])
def test_connecting(loop: Any, port: str) -> None:
    watched = set(loop._selector.get_map())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        if port == "refused":
            listener.close()

        def undo() -> None:
            for fd in set(loop._selector.get_map()) - watched:
                loop._remove_writer(fd)
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
            run_turn(loop)

        assert without_each_allocation(lambda: partial(loop._open_connection, *address), undo) > 0


def test_accepting(loop: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        clients: list[socket.socket] = []

        def prepare() -> Step:
            clients.append(socket.create_connection(listener.getsockname()))
            return partial(loop._serve_ready, Plain, listener, None, 1, None)

        def undo() -> None:
            clients.pop().close()
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
            loop._ready.clear()

        assert without_each_allocation(prepare, undo) > 0


@pytest.mark.parametrize("end", ["server", "client"])
def test_making_a_transport(loop: Any, end: str) -> None:
    sockets: list[socket.socket] = []
    protocol = asyncio.Protocol()

    def prepare() -> Step:
        sockets.extend(socket.socketpair())
        near = sockets[0]
        near.setblocking(False)
        if end == "client":
            return partial(loop._make_socket_transport, near, protocol, loop.create_future())
        return partial(
            loop._serve, partial(getattr, protocol, "__class__", None), near, ("host", 1), None, None
        )

    def undo() -> None:
        loop._ready.clear()
        while sockets:
            sockets.pop().close()
        gc.collect()

    failed = without_each_allocation(prepare, undo)
    assert failed > 0 if end == "client" else failed == 0  # A server reports it in debug mode only.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses(loop: Any, host: str) -> None:
    """Where there is no memory, it is left to getaddrinfo() to report that."""
    query = host, 80, 0, socket.SOCK_STREAM, 0, 0
    last: list[Any] = [None]
    found: list[Any] = []

    def step() -> None:
        last[0] = loop._find_addresses(*query)  # append() needs memory, and asserts in a debug build of 3.14

    expected = loop._find_addresses(*query)
    without_each_allocation(lambda: step, lambda: found.append(last[0]))
    assert [each for each in found if each is not None] == [expected] * found.count(expected)
    assert expected in found


def test_readers(loop: Any) -> None:
    near, far = socket.socketpair()
    with near, far:
        watched = set(loop._selector.get_map())

        def undo() -> None:
            loop.remove_reader(near)
            assert set(loop._selector.get_map()) == watched

        assert without_each_allocation(lambda: partial(loop.add_reader, near, print, 1, 2, 3, 4), undo) > 0


def test_a_turn_loses_no_connection(loop: Any) -> None:
    """They are more than the queue of handles has room for, and there is no memory to put them back."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    results: list[tuple[bool, int]] = []
    while not results or (not results[-1][0] and len(results) < MOST_ALLOCATIONS):
        opened = [loop._open_connection(*listener.getsockname()) for _ in range(100)]
        done = without_memory(len(results), loop._run_once, failures=3)
        run_turn(loop)
        results.append((done, sum(future.done() for _, _, future, _ in opened)))
        for sock, *_ in opened:
            sock.close()
            listener.accept()[0].close()
    listener.close()
    assert len(results) > 1
    assert {made for _, made in results} == {100}
