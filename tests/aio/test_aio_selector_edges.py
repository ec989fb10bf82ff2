"""LoopSelector: the kernel and the table agree when Python code, or a closed file, comes in between."""

import asyncio
import os
import socket
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest
from support.kernel import fdinfo

from pyepoll import aio

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sel() -> Iterator[aio.LoopSelector]:
    with aio.LoopSelector() as sel:
        yield sel


@pytest.fixture
def pair() -> Iterator[Sockets]:
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


class Finalized:
    """Data whose finalizer unregisters the fd."""

    def __init__(self, sel: aio.LoopSelector, fd: int) -> None:
        self.sel, self.fd = sel, fd
        self.removed: list[int] = []

    def __del__(self) -> None:
        self.removed.append(self.sel.unregister(self.fd).fd)


def test_modify_with_a_finalizer_that_unregisters(sel: aio.LoopSelector, pair: Sockets) -> None:
    fd = pair[0].fileno()
    old = Finalized(sel, fd)
    removed = old.removed
    sel.register(fd, EVENT_READ, old)
    del old
    key = sel.modify(fd, EVENT_READ | EVENT_WRITE, "new")
    assert removed == [fd]
    assert sel.get_map()[fd] == key
    assert sel.select(0) == [(key, EVENT_WRITE)]
    sel.unregister(fd)
    assert len(sel.get_map()) == 0
    assert sel.select(0) == []
    assert fdinfo(sel._selector) == {}


def reuse(fd: int) -> Sockets:
    """Return another pair, readable and writable, whose first socket also has this fd, which is free."""
    near, far = socket.socketpair()
    far.send(b"x")
    if near.fileno() != fd:
        os.dup2(near.fileno(), fd, inheritable=False)
        near.detach()
        near = socket.socket(fileno=fd)
    return near, far


@pytest.mark.parametrize("method", ["register", "modify"])
def test_closed_object_does_not_watch_the_next_file(
    sel: aio.LoopSelector, pair: Sockets, method: str
) -> None:
    fd = pair[0].fileno()
    sel.register(pair[0], EVENT_READ)
    pair[0].close()
    other = reuse(fd)
    with pytest.raises(KeyError if method == "register" else FileNotFoundError):
        getattr(sel, method)(pair[0], EVENT_READ | EVENT_WRITE)
    assert sel.select(0) == []
    other[0].close()
    other[1].close()


@pytest.mark.parametrize("events", [EVENT_READ | EVENT_WRITE, EVENT_WRITE])
def test_postponed_change_of_a_closed_socket_does_not_watch_the_next_file(
    sel: aio.LoopSelector, pair: Sockets, events: int
) -> None:
    fd = pair[0].fileno()
    sel.register(pair[0], EVENT_READ)
    sel.modify(pair[0], events)
    pair[0].close()
    other = reuse(fd)
    assert sel.select(0) == []
    key = sel.modify(other[0], EVENT_READ)
    assert sel.select(0) == [(key, EVENT_READ)]
    other[0].close()
    other[1].close()


def test_writer_of_a_closed_socket_is_not_called_for_the_next_file(pair: Sockets) -> None:
    loop = aio.new_event_loop()
    called: list[str] = []
    fd = pair[0].fileno()
    loop.add_reader(pair[0], called.append, "reader")
    loop.add_writer(pair[0], called.append, "writer")
    pair[0].close()
    other = reuse(fd)
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert called == []
    loop.close()
    other[0].close()
    other[1].close()


def test_loop_with_a_selector_that_was_not_initialized(pair: Sockets) -> None:
    loop = aio.new_event_loop()
    good, loop._selector = loop._selector, aio.LoopSelector.__new__(aio.LoopSelector)  # type: ignore[type-abstract]
    with pytest.raises(AttributeError, match="was __init__ called"):
        loop.add_reader(pair[0], print)
    with pytest.raises(AttributeError, match="was __init__ called"):
        loop.run_forever()
    loop._selector = good
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def stuffed(sock: socket.socket) -> socket.socket:
    """Fill the buffers of a socket, so that a send has to wait."""
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        return sock


def test_cancelled_sock_recv_of_a_closed_socket(pair: Sockets) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near = stuffed(pair[0])
        loop.add_writer(near.fileno(), print)  # The selector has the fd, not the socket.
        task = asyncio.create_task(loop.sock_recv(near, 1))
        await asyncio.sleep(0.01)
        near.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    aio.run(main())


def test_sock_recv_of_nothing_does_not_wait() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            near, far = socket.socketpair(socket.AF_UNIX, kind)
            with near, far:
                near.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(near, 0), 1) == b""
                far.send(b"data")
                assert await loop.sock_recv(near, 0) == b""
                assert await loop.sock_recv(near, 10) == b"data"

    aio.run(main())


class NoHandles(aio.EventLoop):
    """Methods that return no handle, which asyncio accepts."""

    def _add_reader(self, *args: Any) -> None:
        super()._add_reader(*args)

    def _add_writer(self, *args: Any) -> None:
        super()._add_writer(*args)


def test_subclass_that_returns_no_handle(pair: Sockets) -> None:
    near, far = stuffed(pair[0]), pair[1]
    loop = NoHandles()

    async def main() -> bytes:
        loop.call_soon(far.recv, 1 << 22)
        await loop.sock_sendall(near, b"x")
        loop.call_soon(far.send, b"data")
        return await loop.sock_recv(near, 10)

    assert loop.run_until_complete(asyncio.wait_for(main(), 5)) == b"data"
    loop.close()


def test_a_transport_that_fails_leaves_no_writer_of_a_strange_handle() -> None:
    """Its context cannot be set. The writer is there all the same."""

    class Strange(aio.EventLoop):
        def _add_writer(self, *args: Any) -> object:
            super()._add_writer(*args)
            return object()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        near, far = socket.socketpair()
        fd = near.fileno()
        with far:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            transport.write(bytes(1 << 22))
            while near.fileno() >= 0:
                await asyncio.sleep(0)
            assert fd not in loop._selector.get_map()

    with asyncio.Runner(loop_factory=lambda: Strange(gather_writes=False)) as runner:
        runner.run(asyncio.wait_for(main(), 5))


@pytest.mark.parametrize("fd", [1 << 31, 1 << 32, 1 << 70, -1])
def test_socket_with_an_impossible_fd(
    sel: aio.LoopSelector, pair: Sockets, fd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "fileno", lambda self: fd)
    with pytest.raises((ValueError, OverflowError)):
        sel.register(pair[0], EVENT_READ)
    monkeypatch.undo()
    assert len(sel.get_map()) == 0


class Replaced:
    """A handle that is found to be cancelled, when another has taken its place."""

    def __init__(self, replace: Any) -> None:
        self.replace = replace

    @property
    def _cancelled(self) -> bool:
        self.replace()
        return True

    def cancel(self) -> None: ...


def test_reader_that_replaced_a_cancelled_one_stays(pair: Sockets) -> None:
    loop = aio.new_event_loop()
    called: list[str] = []

    def callback() -> None:
        called.append("new")
        loop.remove_reader(pair[0])
        loop.stop()

    handle = Replaced(lambda: loop.add_reader(pair[0], callback))
    loop._selector.register(pair[0], EVENT_READ, (handle, None))
    pair[1].send(b"x")
    loop.call_later(5, loop.stop)
    loop.run_forever()
    assert called == ["new"]
    loop.close()


class Asks:
    """Data whose finalizer asks for a key."""

    def __init__(self, sel: aio.LoopSelector, fd: int) -> None:
        self.sel, self.fd = sel, fd
        self.errors: list[type[Exception]] = []

    def __del__(self) -> None:
        try:
            self.sel.get_key(self.fd)
        except (KeyError, RuntimeError) as error:
            self.errors.append(type(error))


def test_finalizers_that_close_runs_find_no_key(sel: aio.LoopSelector, pair: Sockets) -> None:
    """asyncio's transport of a pipe asks for its key, for the text of its ResourceWarning."""
    data = Asks(sel, pair[0].fileno())
    errors = data.errors
    sel.register(pair[0], EVENT_READ, data)
    del data
    sel.close()
    assert errors == [KeyError]
    with pytest.raises(RuntimeError):
        sel.get_key(pair[0])
