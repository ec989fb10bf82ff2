"""Data that a transport has not read are reported again, in spite of all that a program does meanwhile.

A loop whose connections are edge-triggered easily loses them. Ours were for a while: six of these tests
failed with the first design, two with the second (docs/design.md).
"""

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loops import Buffered, Keeps, Plain, connection, receive, same, soon, tcp_pair, turns

import pyepoll

Loop = Any


def selector_of(loop: Loop) -> Any:
    return getattr(loop, "_selector")  # noqa: B009


def arrived(transport: Any) -> None:
    """Block until there is something to read."""
    assert select.select([transport.get_extra_info("socket").fileno()], [], [], 20)[0]
    time.sleep(0.01)  # A second packet needs it, too.


async def send(seen: Keeps, peer: socket.socket, count: int = 20) -> None:
    """One message after another, each of which is read at once."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(1, count + 1):
        peer.send(b".")
        await soon(lambda number=number: seen.has(number))  # type: ignore[misc]
    seen.seen.clear()


@contextlib.contextmanager
def running(seen: Keeps) -> Iterator[tuple[Loop, Any, socket.socket]]:
    """A loop of ours that is not running, its transport, and the peer."""
    near, peer = tcp_pair()
    with peer, contextlib.closing(pyepoll.aio.new_event_loop()) as loop:

        async def connect() -> Any:
            return (await loop.create_connection(lambda: seen, sock=near))[0]

        transport = loop.run_until_complete(connect())
        loop.run_until_complete(send(seen, peer))
        yield loop, transport, peer
        transport.abort()
        loop.run_until_complete(turns())


@pytest.mark.parametrize("end", [False, True])
def test_a_loop_that_is_driven_from_outside(end: bool) -> None:
    """By a program that lets it turn when the fd of its selector is readable."""
    with running(seen := Plain()) as (loop, transport, peer):
        transport.max_size = 100
        peer.send(b"x" * (50 if end else 1000))
        if end:
            peer.shutdown(socket.SHUT_WR)
        arrived(transport)
        while not (seen.lost() if end else seen.has(1000)):
            assert select.select([selector_of(loop).fileno()], [], [], 20)[0]
            loop.call_soon(loop.stop)
            loop.run_forever()


def test_the_end_comes_with_data() -> None:
    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            await send(seen, peer)
            peer.send(b"the last")
            peer.shutdown(socket.SHUT_WR)
            arrived(transport)
            await soon(seen.lost)
            return seen.seen[:]

    assert same(scenario) == [b"the last", "eof", ("lost", None)]


def test_data_behind_an_urgent_byte() -> None:
    """A read ends at it, although there is more."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            await send(seen, peer)
            for data, flags in (b"abc", 0), (b"!", socket.MSG_OOB), (b"def", 0):
                peer.send(data, flags)
            arrived(transport)
            await soon(lambda: seen.has(6))
            return seen.seen[:]

    assert same(scenario) == [b"abcdef"]


def test_an_urgent_byte_alone_is_kept() -> None:
    """No read is made, which would discard it."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            await send(seen, peer)
            with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same_socket:
                peer.send(b"!", socket.MSG_OOB)
                assert select.select([], [], [same_socket], 20)[2]
                await turns(20)
                urgent = same_socket.recv(1, socket.MSG_OOB)
            peer.send(b"x")
            await soon(lambda: seen.has(1))
            return [urgent, seen.seen[:]]

    assert same(scenario) == [b"!", [b"x"]]


def test_messages_with_fds() -> None:
    """A read of a Unix socket ends at each."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain()) as (_, peer):
            for data in b"one", b"two", b"three":
                socket.send_fds(peer, [data], [0])
            await soon(lambda: seen.has(11))
            return seen.seen[:]

    assert same(scenario) == ["made", b"onetwothree"]


def test_an_event_that_select_takes() -> None:
    """A program that looks at the selector leaves the event to the loop."""

    async def scenario() -> list[Any]:
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            await send(seen, peer)
            peer.send(b"x")
            arrived(transport)
            fd = transport.get_extra_info("socket").fileno()
            for _ in range(3):
                found = selector_of(asyncio.get_running_loop()).select(0)
                assert [key.fd for key, _ in found] == [fd]
            await soon(lambda: seen.has(1))
            return seen.seen[:]

    same(scenario)


def test_an_exception_before_the_read() -> None:
    class Interrupted(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            if interrupts:
                interrupts.pop()
                raise KeyboardInterrupt
            return super().get_buffer(sizehint)

    interrupts: list[int] = []
    with running(seen := Interrupted(size=100)) as (loop, _, peer):
        interrupts.append(1)
        peer.send(b"x")
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(soon(lambda: seen.has(1)))


class Hooked(Plain):
    """Calls a function once, after the first data."""

    hook: Callable[[], object] | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()


def test_a_turn_in_a_callback(caplog: pytest.LogCaptureFixture) -> None:
    """The connection's context is entered already: an error is logged, and the reader is not called."""
    with running(seen := Hooked()) as (loop, transport, peer):

        def turn() -> None:
            peer.send(b"2")
            arrived(transport)
            getattr(loop, "_run_once")()  # noqa: B009

        seen.hook = turn
        peer.send(b"1")
        loop.run_until_complete(soon(lambda: seen.has(2)))
        assert "cannot enter context" in caplog.text


def test_the_fd_of_the_selector_in_a_callback() -> None:
    """It is readable as long as there are data, as for a program whose callback runs another main loop."""
    with running(seen := Hooked()) as (loop, transport, peer):
        fd = selector_of(loop).fileno()
        readable: list[int] = []
        seen.hook = lambda: readable.extend(select.select([fd], [], [], 20)[0])
        transport.max_size = 10
        peer.send(b"x" * 100)
        loop.run_until_complete(soon(lambda: seen.has(100)))
        assert readable == [fd]


def test_a_thread_that_waits_already() -> None:
    """It gets the event of data that a read has left, while the callback waits for it."""
    with running(seen := Hooked()) as (loop, transport, peer):
        fd = transport.get_extra_info("socket").fileno()
        found: list[int] = []

        def wait() -> None:
            found.extend(key.fd for key, _ in selector_of(loop).select(20))

        def start() -> None:
            time.sleep(0.05)  # The loop has begun to wait.
            thread.start()
            time.sleep(0.05)
            peer.send(b"x" * 100)

        thread, starter = threading.Thread(target=wait), threading.Thread(target=start)
        seen.hook = lambda: thread.join(20)
        transport.max_size = 10
        starter.start()
        loop.run_until_complete(soon(lambda: seen.has(100)))
        starter.join()
        assert not thread.is_alive()
        assert found == [fd]


class Wrapper:
    """A selector that hands on all calls to another."""

    def __init__(self, selector: Any) -> None:
        self.selector = selector

    def __getattr__(self, name: str) -> Any:
        return getattr(self.selector, name)


@pytest.mark.parametrize("attribute", ["_ready", "_selector"])
def test_a_part_of_the_loop_that_is_replaced(attribute: str) -> None:
    """In the turn that has taken the event, before its reader is called."""
    first, second = socket.socketpair()
    with first, second, running(seen := Plain()) as (loop, transport, peer):

        def replace() -> None:
            loop.remove_reader(first)
            if attribute == "_ready":
                getattr(loop, attribute).clear()
            else:
                setattr(loop, attribute, Wrapper(getattr(loop, attribute)))

        transport.max_size = 100
        second.send(b"x")
        peer.send(b"x" * 1000)
        arrived(transport)
        loop.add_reader(first, replace)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        loop.run_until_complete(soon(lambda: seen.has(1000)))


def test_an_fd_that_is_redirected_for_a_turn() -> None:
    """As the standard output of a server that inetd has started."""

    async def scenario() -> list[Any]:
        async with connection(seen := Hooked(), tcp=True) as (transport, peer):
            await send(seen, peer)
            fd = transport.get_extra_info("socket").fileno()
            saved, null = os.dup(fd), os.open(os.devnull, os.O_RDWR)

            def redirect() -> None:
                os.dup2(null, fd)
                asyncio.get_running_loop().call_soon(os.dup2, saved, fd)

            seen.hook = redirect
            transport.max_size = 5
            peer.send(b"hello")
            await soon(lambda: seen.has(5))
            await turns()
            os.close(saved)
            os.close(null)
            peer.send(b"later")
            await soon(lambda: seen.has(10))
            transport.write(b"reply")
            return [seen.seen[:], await receive(peer, 5)]

    assert same(scenario) == [[b"hellolater"], b"reply"]
