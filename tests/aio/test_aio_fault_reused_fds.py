"""A socket is closed without remove_reader(); the next one, with the same fd, gets its events only."""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.faults import Side, sides
from support.loops import Plain, complaints, soon, turns

Pair = tuple[socket.socket, socket.socket]
Watch = Callable[[Pair, list[str]], Awaitable[None]]


def pair() -> Pair:
    near, peer = socket.socketpair()
    near.setblocking(False)
    peer.setblocking(False)
    return near, peer


def read_into(called: list[str], sock: socket.socket) -> None:
    called.append(sock.recv(10).decode())


async def read(new: Pair, called: list[str]) -> None:
    loop = asyncio.get_running_loop()

    def reader() -> None:
        called.append(new[0].recv(10).decode())

    loop.add_reader(new[0], reader)
    new[1].send(b"new")
    await soon(lambda: "new" in called)
    await turns()
    assert loop.remove_reader(new[0]) is not False


async def write(new: Pair, called: list[str]) -> None:
    loop = asyncio.get_running_loop()
    # Full first, so that an event of the kernel's is needed.
    with contextlib.suppress(BlockingIOError):
        while True:
            new[0].send(bytes(65536))

    def writer() -> None:
        called.append("new")
        loop.remove_writer(new[0])

    loop.add_writer(new[0], writer)
    await turns()
    assert called == []
    with contextlib.suppress(BlockingIOError):
        while True:
            new[1].recv(65536)
    await soon(lambda: "new" in called)
    await turns()


async def receive(new: Pair, called: list[str]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(loop.sock_recv(new[0], 10))
    await turns()
    new[1].send(b"new")
    called.append((await task).decode())
    await turns()


async def connect(new: Pair, called: list[str]) -> None:
    loop = asyncio.get_running_loop()
    transport, seen = await loop.create_connection(Plain, sock=new[0])
    new[1].send(b"new")
    await soon(lambda: b"new" in seen.seen)
    called.append("new")
    transport.close()
    await soon(seen.lost)


USES: dict[str, Watch] = {
    "add_reader": read,
    "add_writer": write,
    "sock_recv": receive,
    "transport": connect,
}


def reuse(side: Side, before: Watch, then: Watch, *, duplicate: bool, pending: bool) -> None:
    """Close a socket that is being watched; let another have its fd, and watch that."""

    async def scenario() -> tuple[list[str], list[str], list[Any]]:
        reported = complaints()
        with contextlib.ExitStack() as stack:
            old_calls: list[str] = []
            new_calls: list[str] = []
            old = pair()
            fd = old[0].fileno()
            stack.callback(old[1].close)
            if duplicate:
                stack.callback(os.close, os.dup(fd))
            await before(old, old_calls)
            if pending:
                old[1].send(b"old")
            old[0].close()
            new = pair()
            stack.callback(new[0].close)
            stack.callback(new[1].close)
            assert new[0].fileno() == fd or side.name == "uvloop"  # It keeps the old socket open.
            await then(new, new_calls)
            asyncio.get_running_loop().remove_reader(fd)
            asyncio.get_running_loop().remove_writer(fd)
            return old_calls, new_calls, reported

    old_calls, new_calls, reported = side.run(scenario)
    assert (new_calls, reported) == (["new"], [])
    assert old_calls == [] or side.name == "uvloop"


async def leave_a_reader(old: Pair, called: list[str]) -> None:
    """Its events are in the kernel, and the loop knows of it."""
    asyncio.get_running_loop().add_reader(old[0], called.append, "old")
    await asyncio.sleep(0.01)


async def leave_a_writer(old: Pair, called: list[str]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            old[0].send(bytes(65536))
    asyncio.get_running_loop().add_writer(old[0], called.append, "old")
    await asyncio.sleep(0.01)


async def leave_both(old: Pair, called: list[str]) -> None:
    await leave_a_writer(old, called)
    await leave_a_reader(old, called)


@sides("reused fd")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("pending", [False, True], ids=["no data", "data pending"])
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicate alive"])
def test_the_next_socket_with_the_fd_gets_its_events(
    side: Side, duplicate: bool, pending: bool, use: str
) -> None:
    """The 16 combinations of issue 16."""
    reuse(side, leave_a_reader, USES[use], duplicate=duplicate, pending=pending)


@sides("reused fd")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicate alive"])
@pytest.mark.parametrize("before", [leave_a_writer, leave_both])
def test_the_next_socket_gets_its_events_after_a_writer(
    side: Side, before: Watch, duplicate: bool, use: str
) -> None:
    reuse(side, before, USES[use], duplicate=duplicate, pending=False)


@sides("reused fd")
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicate alive"])
def test_a_cancelled_sock_recv_leaves_the_fd_clean(side: Side, duplicate: bool) -> None:
    """The socket is closed while a task waits for it; the task is cancelled when the fd is another's."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            old = pair()
            stack.callback(old[1].close)
            fd = old[0].fileno()
            if duplicate:
                stack.callback(os.close, os.dup(fd))
            waits = asyncio.ensure_future(loop.sock_recv(old[0], 10))
            await asyncio.sleep(0.01)
            old[0].close()
            new = pair()
            stack.callback(new[0].close)
            stack.callback(new[1].close)
            assert new[0].fileno() == fd or side.name == "uvloop"
            called: list[str] = []
            loop.add_reader(new[0], lambda: called.append(new[0].recv(10).decode()))
            waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waits
            new[1].send(b"new")
            await soon(lambda: called == ["new"])
            assert loop.remove_reader(new[0]) is not False

    side.run(scenario)


@sides("reused fd in one turn")
@pytest.mark.parametrize("pending", [False, True], ids=["no data", "data pending"])
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicate alive"])
@pytest.mark.parametrize("as_int", [False, True], ids=["socket", "int"])
def test_remove_close_reuse_and_add_in_one_turn(
    side: Side, as_int: bool, duplicate: bool, pending: bool
) -> None:
    """The program does everything right, and nothing between the four calls waits."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            called: list[str] = []
            old = pair()
            stack.callback(old[1].close)
            fd = old[0].fileno()
            if duplicate:
                stack.callback(os.close, os.dup(fd))
            for _ in range(3):
                loop.add_reader(fd if as_int else old[0], called.append, "old")
                await asyncio.sleep(0.01)
                if pending:
                    old[1].send(b"old")
                assert loop.remove_reader(fd if as_int else old[0]) is not False
                old[0].close()
                new = pair()
                stack.callback(new[0].close)
                stack.callback(new[1].close)
                assert new[0].fileno() == fd
                watched = fd if as_int else new[0]
                loop.add_reader(watched, functools.partial(read_into, called, new[0]))
                await turns()
                assert called == []
                new[1].send(b"new")
                await soon(lambda: called == ["new"])
                assert loop.remove_reader(fd if as_int else new[0]) is not False
                called.clear()
                old = new

    side.run(scenario)
