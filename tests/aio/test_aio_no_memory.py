"""A transport that has no memory for data accepts none of it."""

import gc
from typing import Any

from support.loops import Plain, complaints, connection, on, soon, turns
from support.no_memory import MOST_ALLOCATIONS, without_memory
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

    async def scenario() -> list[Any]:
        results: list[Any] = []
        while not results or (not results[-1][0] and len(results) < MOST_ALLOCATIONS):
            results.append(await written(len(results)))
        return results

    gc.disable()
    try:
        *failed, last = gathering(scenario)
    finally:
        gc.enable()
    assert failed
    assert set(failed) == {(False, b"!")}
    assert last == (True, b"".join(PARTS) + b"!")


def test_data_that_were_lost_are_the_last() -> None:
    """Where there is no memory for data, nor for the report, the connection ends all the same."""

    async def received(start: int) -> bool:
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
            return not closing

    async def scenario() -> list[bool]:
        results: list[bool] = []
        while not (results and results[-1]) and len(results) < MOST_ALLOCATIONS:
            results.append(await received(len(results)))
        return results

    gc.disable()
    try:
        results = on("pyepoll", scenario)
    finally:
        gc.enable()
    assert results[-1]
