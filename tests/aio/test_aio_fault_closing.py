"""The end of a connection: connection_lost() is called once, and calls after it are no errors."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from support.faults import Side, closing, sides
from support.loops import Buffered, Keeps, Plain, complaints, receive_all, small_buffers, soon, turns

MUCH = bytes(1_000_000)


async def connect(seen: Keeps) -> tuple[Any, socket.socket]:
    near, peer = socket.socketpair()
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: seen, sock=small_buffers(near))
    return transport, peer


def call_after_close(side: Side, call: str, *arguments: Any) -> None:
    """Call a method after close() with data that waits, which has been sent since."""
    seen = Plain()

    async def scenario() -> None:
        reported = complaints()
        transport, peer = await connect(seen)
        with closing(peer):
            transport.write(MUCH)
            transport.close()
            assert len(await receive_all(peer)) == len(MUCH)
            await soon(seen.lost)
            getattr(transport, call)(*arguments)
            await turns()
        assert reported == []
        assert seen.seen.count(("lost", None)) == 1

    side.run(scenario)


@sides("close: abort after the data was sent")
def test_abort_after_close_has_sent_the_data_is_ignored(side: Side) -> None:
    call_after_close(side, "abort")


@sides("close: write after the data was sent")
@pytest.mark.parametrize(("call", "data"), [("write", b"data"), ("writelines", [b"da", b"ta"])])
def test_a_write_after_close_has_sent_the_data_is_ignored(side: Side, call: str, data: Any) -> None:
    call_after_close(side, call, data)


@sides("close: other calls after the data was sent")
@pytest.mark.parametrize("call", ["close", "pause_reading", "resume_reading", "write_eof"])
def test_other_calls_after_close_has_sent_the_data_are_ignored(side: Side, call: str) -> None:
    call_after_close(side, call)


@sides("close: abort after the data was sent")
def test_a_stream_can_be_aborted_after_close_and_drain(side: Side) -> None:
    """A server's usual clean-up: close, drain, and abort in the end."""

    async def scenario() -> None:
        reported = complaints()
        near, peer = socket.socketpair()
        peer.setblocking(False)
        with closing(peer):
            _, writer = await asyncio.open_connection(sock=small_buffers(near))
            writer.write(MUCH)
            writer.close()
            received = asyncio.ensure_future(receive_all(peer))
            with contextlib.suppress(ConnectionError):  # asyncio says so if the connection is lost.
                await writer.drain()
            await writer.wait_closed()
            writer.transport.abort()
            writer.close()
            assert len(await received) == len(MUCH)
            await turns()
        assert reported == []

    side.run(scenario)


@sides("close: connection_lost twice")
@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closing"])
def test_an_abort_in_resume_writing_is_reported_once(side: Side, kind: type[Keeps], closed: bool) -> None:
    class Ends(kind):  # type: ignore[valid-type, misc]
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.abort()

    seen = Ends()

    async def scenario() -> None:
        reported = complaints()
        transport, peer = await connect(seen)
        with closing(peer):
            transport.set_write_buffer_limits(high=0)  # Resumed when all is sent.
            transport.write(MUCH)
            if closed:
                transport.close()
            await receive_all(peer)
            await soon(lambda: any(what[0] == "lost" for what in seen.seen))
            await turns()
        assert reported == []
        assert seen.seen == ["made", "pause", "resume", ("lost", None)]

    side.run(scenario)
