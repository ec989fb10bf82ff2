"""``sock_accept``, ``sock_connect`` and ``sock_recv_into``: the C part, and the rest in asyncio."""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from selectors import EVENT_READ
from typing import Any

import pytest
from support.loops import Plain, complaints, error_text, on, same, soon, turns

from pyepoll import aio


@contextmanager
def listening(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.create_server(
        ("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family
    ) as listener:
        listener.setblocking(False)
        yield listener


@contextmanager
def unconnected(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        yield sock


def traits(sock: socket.socket) -> tuple[Any, ...]:
    return (
        type(sock).__name__,
        *(sock.family, sock.type, sock.proto, sock.gettimeout()),
        os.get_blocking(sock.fileno()),
        os.get_inheritable(sock.fileno()),
    )


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("waits", [False, True])
def test_accept_and_connect_are_asyncios(family: int, waits: bool) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        with listening(family) as listener, unconnected(family) as client:
            accepting = asyncio.create_task(loop.sock_accept(listener))
            if waits:
                await turns(3)
            assert await loop.sock_connect(client, listener.getsockname()) is None  # type: ignore[func-returns-value]
            connection, address = await accepting
            with connection:
                await loop.sock_sendall(client, b"data")
                buffer = bytearray(10)
                count = await loop.sock_recv_into(connection, buffer)
                assert (count, address) == (4, client.getsockname())
                assert loop.remove_reader(listener) is loop.remove_writer(client) is False
                return traits(connection), bytes(buffer), type(address)

    same(scenario)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_refused_connection_raises_asyncios_error(family: int) -> None:
    with listening(family) as listener:
        address = listener.getsockname()

    async def scenario() -> Any:
        with unconnected(family) as client:
            try:
                await asyncio.get_running_loop().sock_connect(client, address)
            except ConnectionRefusedError as error:
                return error.errno, error_text(error)

    assert same(scenario) == (
        errno.ECONNREFUSED,
        f"ConnectionRefusedError: [Errno 111] Connect call failed {address}",
    )


def test_a_cancelled_connection_may_be_tried_again() -> None:
    """The next call raises the error of the first connection; the one after it connects."""

    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        seen = []
        with socket.socket() as server, unconnected() as sock:
            server.bind(("127.0.0.1", 0))
            first = loop.create_task(loop.sock_connect(sock, server.getsockname()))
            await asyncio.sleep(0)
            first.cancel()
            server.listen(1)
            for _ in range(2):
                try:
                    await loop.sock_connect(sock, server.getsockname())
                    seen.append("connected")
                except OSError as error:
                    seen.append(type(error).__name__)
        return seen

    assert same(scenario) == ["ConnectionRefusedError", "connected"]


def test_a_connected_socket_is_refused() -> None:
    """Not by the first connect() after EINPROGRESS, which succeeds: the next one raises EISCONN."""

    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        with listening() as listener, unconnected() as client:
            await loop.sock_connect(client, listener.getsockname())
            await loop.sock_connect(client, listener.getsockname())
            try:
                await loop.sock_connect(client, listener.getsockname())
            except OSError as error:
                return error_text(error)

    assert same(scenario) == f"OSError: [Errno {errno.EISCONN}] {os.strerror(errno.EISCONN)}"


ODD: list[Any] = [
    *(("127.0.0.1", 70000), ("127.0.0.1", -1), ("127.0.0.1",), ["127.0.0.1", 1], ("127.0.0.1", "1")),
    *("127.0.0.1", None),
]


@pytest.mark.parametrize("address", ODD)
def test_odd_addresses_are_left_to_asyncio(address: Any) -> None:
    async def scenario() -> Any:
        with unconnected() as client:
            try:
                await asyncio.get_running_loop().sock_connect(client, address)
            except Exception as error:
                return error_text(error)

    same(scenario)


def test_a_name_is_resolved() -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        with listening() as listener, unconnected() as client:
            await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
            return client.getpeername() == listener.getsockname()

    assert same(scenario)


def test_a_replaced_resolver_is_called() -> None:
    asked: list[Any] = []

    class Asks(aio.EventLoop):
        async def _ensure_resolved(self, address: Any, **options: Any) -> Any:
            asked.append(address)
            return await super()._ensure_resolved(address, **options)

    async def main() -> None:
        with listening() as listener, unconnected() as client:
            await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
            assert asked == [listener.getsockname()]

    with asyncio.Runner(loop_factory=Asks) as runner:
        runner.run(main())


@pytest.mark.parametrize("call", ["sock_accept", "sock_connect", "sock_recv_into"])
@pytest.mark.parametrize("kind", ["closed", "of a subclass", "no socket"])
def test_other_sockets_are_left_to_asyncio(call: str, kind: str) -> None:
    class Own(socket.socket):
        pass

    async def scenario() -> Any:
        sock: Any = Own() if kind == "of a subclass" else socket.socket() if kind == "closed" else object()
        if kind == "closed":
            sock.close()
        elif kind == "of a subclass":
            sock.setblocking(False)
        args = {"sock_accept": (), "sock_connect": (("127.0.0.1", 1),), "sock_recv_into": (bytearray(1),)}[
            call
        ]
        try:
            await getattr(asyncio.get_running_loop(), call)(sock, *args)
        except Exception as error:
            return error_text(error)
        finally:
            if kind != "no socket":
                sock.close()

    assert same(scenario) is not None


@pytest.mark.parametrize("call", ["sock_accept", "sock_recv_into"])
def test_a_cancelled_call_leaves_nothing_behind(call: str) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        with listening() as listener, near, far:
            sock = listener if call == "sock_accept" else near
            args = () if call == "sock_accept" else (bytearray(1),)
            waiting = asyncio.create_task(getattr(loop, call)(sock, *args))
            await turns(2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await turns(2)
            return waiting.cancelled(), loop.remove_reader(sock)

    assert same(scenario) == (True, False)


@pytest.mark.parametrize("call", ["sock_recv", "sock_recv_into", "sock_sendall"])
def test_a_transport_made_right_after_a_cancelled_call_changes_no_outcome(call: str) -> None:
    """The reader or writer of the call is removed before the transport adds its own."""

    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        complaints()  # asyncio reports that a transport uses the fd.
        near, far = socket.socketpair()
        near.setblocking(False)
        args = {"sock_recv": 10, "sock_recv_into": bytearray(10), "sock_sendall": bytes(1 << 22)}
        with far:
            waiting = asyncio.create_task(getattr(loop, call)(near, args[call]))
            await turns(2)
            waiting.cancel()
            transport, _ = await loop.create_connection(lambda: seen, sock=near)
            await asyncio.gather(waiting, return_exceptions=True)
            far.send(b"data")
            await soon(lambda: seen.has(4))
            watched = loop._selector.get_map()[near.fileno()].events
            transport.abort()
            await soon(seen.lost)
            return waiting.cancelled(), seen.seen, watched

    seen = Plain()
    assert on("pyepoll", scenario) == (True, ["made", b"data", ("lost", None)], EVENT_READ)
    seen = Plain()
    assert on("asyncio", scenario)[:2] == (True, ["made", b"data", ("lost", None)])


def test_a_transport_made_right_after_a_call_loses_none_of_its_data() -> None:
    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        complaints()
        near, far = socket.socketpair()
        near.setblocking(False)
        made: list[Any] = []

        def make() -> None:
            made.append(loop._make_socket_transport(near, Plain()))

        with far:
            waiting = asyncio.create_task(loop.sock_recv(near, 10))
            await turns(2)
            far.send(b"data")
            # After the reader's callback, before the task goes on.
            loop.call_soon(lambda: loop.call_soon(make))
            data = await waiting
            assert made
            await turns(2)
            made[0].abort()
            await turns(2)
            return data

    assert same(scenario) == b"data"


def test_a_connection_that_comes_with_the_cancellation_stays_in_the_queue() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener, unconnected() as client:
            waiting = asyncio.create_task(loop.sock_accept(listener))
            await turns(2)
            client.connect_ex(listener.getsockname())
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            connection, _ = await loop.sock_accept(listener)
            with connection:
                assert connection.getpeername() == client.getsockname()

    on("pyepoll", main)


def test_a_buffer_that_cannot_be_written_is_refused() -> None:
    async def scenario() -> Any:
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            try:
                await asyncio.get_running_loop().sock_recv_into(near, b"constant")
            except TypeError as error:
                return "read-write bytes-like object, not bytes" in str(error)

    assert same(scenario) is True


_refused = "none"


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == _refused:
        raise PermissionError(event)


@pytest.mark.parametrize("event", ["socket.__new__", "socket.connect"])
def test_a_call_that_an_audit_hook_refuses_leaves_no_fd(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.addaudithook(_hook)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as listener, unconnected() as client:
            if event == "socket.__new__":
                await loop.sock_connect(client, listener.getsockname())
            before = os.listdir("/proc/self/fd")
            monkeypatch.setattr(sys.modules[__name__], "_refused", event)
            if event == "socket.connect":
                call: Any = loop.sock_connect(client, listener.getsockname())
            else:
                call = loop.sock_accept(listener)
            with pytest.raises(PermissionError, match=event):
                await call
            monkeypatch.undo()
            assert os.listdir("/proc/self/fd") == before

    on("pyepoll", main)


def test_a_connection_under_way_is_waited_for() -> None:
    """A listener whose queue is full does not answer. The second call gets EALREADY from the kernel."""

    async def scenario() -> list[bool]:
        loop = asyncio.get_running_loop()
        finished = []
        with closing(socket.socket()) as listener, unconnected() as first, unconnected() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            await loop.sock_connect(first, listener.getsockname())
            for _ in range(2):
                waiting = asyncio.create_task(loop.sock_connect(second, listener.getsockname()))
                await turns(3)
                finished.append(waiting.done())
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await turns(2)
            return [*finished, loop.remove_writer(second)]

    assert same(scenario) == [False, False, False]
