"""A transport that has no memory for data accepts none of it."""

import asyncio
from typing import Any

from support.loops import Plain, complaints, connection, soon, turns
from support.no_memory import with_each_allocation_failing, without_memory
from test_aio_gather import arrived, gathering

PARTS = [b"%d," % number for number in range(100)]


def test_writelines_writes_all_or_nothing() -> None:
    async def written(start: int) -> tuple[bool, bytes]:
        async with connection(Plain()) as (transport, peer):
            done = without_memory(start, lambda: transport.writelines(PARTS))
            await turns(2)
            transport.write(b"!")  # It would send what was left in the queue.
            await turns(2)
            return done, arrived(peer)

    *failed, last = with_each_allocation_failing(written, gathering)
    assert failed
    assert set(failed) == {(False, b"!")}
    assert last == (True, b"".join(PARTS) + b"!")


def test_data_that_were_lost_are_the_last() -> None:
    """Where there is no memory for data, nor for the report, the connection ends all the same."""

    async def received(start: int) -> tuple[bool]:
        complaints()
        protocol = Plain()
        async with connection(protocol) as (transport, peer):
            peer.send(b"first")
            await soon(lambda: protocol.has(5))  # There is a buffer now.
            peer.send(b"second")
            without_memory(start, transport._read_ready, failures=1000)
            peer.send(b"third")
            await turns(4)
            closing = transport.is_closing()
            transport.abort()
            await soon(protocol.lost)
            assert closing or protocol.seen[:2] == ["made", b"firstsecondthird"]
            return (not closing,)

    assert with_each_allocation_failing(received)[-1] == (True,)


def test_a_stream_gets_its_data_or_ends() -> None:
    async def fed(start: int) -> tuple[bool]:
        problems = complaints()
        reader: Any = asyncio.StreamReader()
        async with connection(asyncio.StreamReaderProtocol(reader)) as (transport, peer):
            reader._waiter = waiter = asyncio.get_running_loop().create_future()
            peer.send(b"data")
            completed = without_memory(start, transport._read_ready, failures=1000)
            await turns(4)
            if transport.is_closing():
                assert problems or not completed
            else:
                assert waiter.done()
                assert bytes(reader._buffer) == b"data"
            return (completed and not problems,)

    *failed, last = with_each_allocation_failing(fed)
    assert failed
    assert last == (True,)
