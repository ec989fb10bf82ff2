"""A forked child leaves the loop of its parent alone, and an error explains it; threads must not write."""

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.faults import LOOPS, Side, closing, sides
from support.loops import Plain, complaints, logged, receive, small_buffers, soon, turns
from support.processes import in_child

MUCH = bytes(1_000_000)

USES: dict[str, Callable[[Any, socket.socket], object]] = {
    "run_until_complete": lambda loop, sock: loop.run_until_complete(asyncio.sleep(0)),
    "run_forever": lambda loop, sock: (loop.call_soon(loop.stop), loop.run_forever()),
    "add_reader": lambda loop, sock: loop.add_reader(sock, print),
    "add_writer": lambda loop, sock: loop.add_writer(sock, print),
    "call_soon_threadsafe": lambda loop, sock: loop.call_soon_threadsafe(print),
}


@sides("fork: the child gets no explanation")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("use", USES)
def test_using_the_loop_in_a_child_raises_an_error_that_explains_it(side: Side, use: str) -> None:
    loop = LOOPS[side.name]()
    near, peer = socket.socketpair()
    near.setblocking(False)
    loop.run_until_complete(asyncio.sleep(0))

    def child() -> None:
        with pytest.raises(RuntimeError, match="fork"):
            USES[use](loop, near)

    try:
        text = in_child(child)
    finally:
        loop.close()
        near.close()
        peer.close()
    assert text == ""


def remove(loop: Any, transport: Any, sock: socket.socket) -> None:
    loop.remove_reader(sock)


def close_transport(loop: Any, transport: Any, sock: socket.socket) -> None:
    transport.abort()


def pause(loop: Any, transport: Any, sock: socket.socket) -> None:
    transport.pause_reading()


def close_loop(loop: Any, transport: Any, sock: socket.socket) -> None:
    asyncio._set_running_loop(None)
    with contextlib.suppress(RuntimeError):  # It seems to run: it was forked within.
        loop.close()


def wake(loop: Any, transport: Any, sock: socket.socket) -> None:
    loop.call_soon_threadsafe(print)


@sides("fork: the child breaks the parent")
@pytest.mark.parametrize("act", [remove, close_transport, pause, close_loop, wake])
def test_a_child_does_not_break_the_loop_of_its_parent(
    side: Side, act: Callable[[Any, Any, socket.socket], None]
) -> None:
    """The child does something to its copy of the loop, and may be refused; the parent goes on."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        other, other_peer = socket.socketpair()
        other.setblocking(False)
        called: list[bytes] = []
        with closing(peer, other, other_peer):
            transport, seen = await loop.create_connection(Plain, sock=near)
            loop.add_reader(other, lambda: called.append(other.recv(10)))
            await asyncio.sleep(0.01)

            def child() -> None:
                with contextlib.suppress(Exception):
                    act(loop, transport, other)

            assert in_child(child) == ""
            peer.send(b"data")
            other_peer.send(b"data")
            await soon(lambda: seen.has(4) and called == [b"data"])
            await asyncio.to_thread(lambda: None)  # The loop is still woken from another thread.
            loop.remove_reader(other)
            transport.close()
            await soon(seen.lost)

    side.run(scenario)


@sides("fork: the child wakes the parent")
def test_a_child_that_wakes_its_copy_does_not_wake_the_parent(side: Side) -> None:
    """The two would share what call_soon_threadsafe() writes to."""
    turns_made: list[int] = []

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        if not hasattr(loop, "_run_once"):
            pytest.skip("uvloop's turns cannot be counted")
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os.read(ready, 1)
                for _ in range(30):
                    loop.call_soon_threadsafe(print)
                    time.sleep(0.003)
            os._exit(0)
        real = loop._run_once

        def run_once() -> None:
            turns_made.append(1)
            real()

        loop._run_once = run_once
        os.write(go, b"x")
        await asyncio.sleep(0.2)
        del loop._run_once
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(go)

    side.run(scenario)
    assert len(turns_made) < 10


def in_thread(function: Callable[[], object]) -> None:
    """Run a function in a thread, and wait for it; its exceptions are raised here."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@sides("debug: write from another thread")
@pytest.mark.parametrize("call", ["write", "writelines"])
def test_debug_mode_refuses_a_write_from_another_thread(side: Side, call: str) -> None:
    """As call_soon() does: RuntimeError."""
    seen = Plain()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        near, peer = socket.socketpair()
        peer.setblocking(False)
        with closing(peer):
            transport, _ = await loop.create_connection(lambda: seen, sock=small_buffers(near))
            data = b"data" if call == "write" else [b"data"]
            with pytest.raises(RuntimeError, match="thread"):
                in_thread(lambda: getattr(transport, call)(data))
            # Nothing was done.
            assert select.select([peer], [], [], 0)[0] == []
            transport.write(b"more")
            assert await receive(peer, 4) == b"more"
            transport.close()
            await soon(seen.lost)

    with logged():
        side.run(scenario, debug=True)


def test_without_debug_mode_a_write_from_another_thread_is_not_refused() -> None:
    """As with asyncio, where programs do it that take care themselves."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reported = complaints()
        near, peer = socket.socketpair()
        peer.setblocking(False)
        with closing(peer):
            transport, seen = await loop.create_connection(Plain, sock=near)
            in_thread(lambda: transport.write(b"data"))
            await turns()
            assert await receive(peer, 4) == b"data"
            transport.close()
            await soon(seen.lost)
        assert reported == []

    for name in "asyncio", "pyepoll":
        Side(name, 20).run(scenario)
