"""A file that is closed without remove_reader(): the next file with its fd is watched, and the old is not."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from support.loops import Plain, on, receive, soon, turns

Sockets = tuple[socket.socket, socket.socket]


def pair() -> Sockets:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Old:
    """A socket that the loop watches, closed behind the loop's back."""

    def __init__(self, how: str, *, duplicate: bool, pending: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.how = how
        self.duplicate = duplicate
        self.pending = pending
        self.called = 0
        self.near, self.far = pair()
        self.fd = self.near.fileno()
        self.kept: list[socket.socket] = []
        self.task: asyncio.Task[bytes] | None = None

    def is_replaced(self) -> None:
        """From here on its callbacks are not called: another file is watched."""
        self.called = 0

    def _call(self) -> None:
        self.called += 1

    async def watch(self) -> None:
        if self.how == "sock_recv":
            self.task = self.loop.create_task(self.loop.sock_recv(self.near, 10))
        if self.how in ("add_reader", "both"):
            self.loop.add_reader(self.near, self._call)
        if self.how in ("add_writer", "both"):
            self.loop.add_writer(self.near, self._call)
        if self.how == "add_reader of an int":
            self.loop.add_reader(self.fd, self._call)
        await turns()

    async def close(self, *, turn: bool) -> None:
        if self.duplicate:
            self.kept.append(self.near.dup())
        if self.pending:
            self.far.send(b"old")
        self.near.close()
        if turn:
            await turns()

    def end(self) -> None:
        for each in [*self.kept, self.far]:
            each.close()
        if self.task is not None:
            self.task.cancel()


@contextlib.asynccontextmanager
async def reused(old: Old, *, turn: bool) -> AsyncIterator[Sockets]:
    """A new socket with the fd of the old one."""
    await old.watch()
    await old.close(turn=turn)
    near, far = pair()
    assert near.fileno() == old.fd
    try:
        yield near, far
    finally:
        near.close()
        far.close()
        old.end()


async def check_add_reader(near: socket.socket, far: socket.socket, pending: bool, old: Old) -> None:
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    if pending:
        far.send(b"1")
    loop.add_reader(near, lambda: got.append(near.recv(1)))
    old.is_replaced()
    if pending:
        await soon(lambda: got == [b"1"], 5)
    got.clear()
    far.send(b"2")
    await soon(lambda: got == [b"2"], 5)
    assert loop.remove_reader(near)


async def check_add_reader_of_an_int(
    near: socket.socket, far: socket.socket, pending: bool, old: Old
) -> None:
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    if pending:
        far.send(b"1")
    loop.add_reader(near.fileno(), lambda: got.append(near.recv(1)))
    old.is_replaced()
    if not pending:
        await turns()
        far.send(b"1")
    await soon(lambda: got == [b"1"], 5)
    assert loop.remove_reader(near.fileno())


async def check_add_writer(near: socket.socket, far: socket.socket, pending: bool, old: Old) -> None:
    loop = asyncio.get_running_loop()
    called: list[None] = []
    if pending:
        far.send(b"1")
    loop.add_writer(near, called.append, None)
    old.is_replaced()
    await soon(lambda: len(called) > 3, 5)
    assert loop.remove_writer(near)
    assert not loop.remove_reader(near)


async def check_sock_recv(near: socket.socket, far: socket.socket, pending: bool, old: Old) -> None:
    loop = asyncio.get_running_loop()
    if pending:
        far.send(b"1")
        assert await loop.sock_recv(near, 1) == b"1"
    for _ in range(2):
        waiting = loop.create_task(loop.sock_recv(near, 1))
        await turns()
        old.is_replaced()
        far.send(b"2")
        async with asyncio.timeout(5):
            assert await waiting == b"2"


async def check_transport(near: socket.socket, far: socket.socket, pending: bool, old: Old) -> None:
    loop = asyncio.get_running_loop()
    seen = Plain()
    if pending:
        far.send(b"1")
    transport, _ = await loop.create_connection(lambda: seen, sock=near)
    await turns()
    old.is_replaced()
    if not pending:
        far.send(b"1")
    await soon(lambda: seen.has(1), 5)
    transport.write(b"answer")
    async with asyncio.timeout(5):
        assert await receive(far, 6) == b"answer"
    transport.write(bytes(1_000_000))  # waits for room
    async with asyncio.timeout(5):
        assert len(await receive(far, 1_000_000)) == 1_000_000
    transport.close()
    await soon(seen.lost, 5)


CHECKS = {
    "add_reader": check_add_reader,
    "add_reader of an int": check_add_reader_of_an_int,
    "add_writer": check_add_writer,
    "sock_recv": check_sock_recv,
    "transport": check_transport,
}
WAYS = ["add_reader", "add_writer", "both", "add_reader of an int", "sock_recv"]


@pytest.mark.parametrize("turn", [False, True], ids=["at once", "turns later"])
@pytest.mark.parametrize("pending", [False, True], ids=["idle", "pending"])
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicated"])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("what", CHECKS)
def test_the_new_file_is_watched(what: str, how: str, duplicate: bool, pending: bool, turn: bool) -> None:
    async def main() -> None:
        old = Old(how, duplicate=duplicate, pending=pending)
        async with reused(old, turn=turn) as (near, far):
            await CHECKS[what](near, far, pending, old)
            assert old.called == 0
            assert old.task is None or not old.task.done() or turn

    on("pyepoll", main)


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "ints"])
@pytest.mark.parametrize("duplicate", [False, True], ids=["closed", "duplicated"])
def test_remove_close_and_add_in_one_turn(duplicate: bool, objects: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called: list[str] = []
        old, old_far = pair()
        loop.add_reader(old, called.append, "old")
        await turns()
        fd = old.fileno()
        kept = [old.dup()] if duplicate else []
        old_far.send(b"old")
        assert loop.remove_reader(old)
        old.close()
        new, new_far = pair()
        assert new.fileno() == fd
        loop.add_reader(new if objects else fd, called.append, "new")
        await turns()
        assert called == []
        new_far.send(b"new")
        await soon(lambda: bool(called))
        assert set(called) == {"new"}
        assert loop.remove_reader(new if objects else fd)
        for each in [*kept, old_far, new, new_far]:
            each.close()

    on("pyepoll", main)


@pytest.mark.parametrize("reader", [True, False])
def test_remove_after_the_fd_was_reused(reader: bool) -> None:
    """The callbacks of the closed file go, all of them: none is watched for the new file."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        old = Old("both", duplicate=False, pending=False)
        async with reused(old, turn=True) as (near, far):
            far.send(b"new")
            assert (loop.remove_reader if reader else loop.remove_writer)(near) in (True, False)
            old.is_replaced()
            await turns()
            assert old.called == 0
            assert not loop.remove_reader(near)
            assert not loop.remove_writer(near)

    on("pyepoll", main)
