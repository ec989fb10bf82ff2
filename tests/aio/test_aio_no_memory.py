"""A transport that has no memory for data accepts none of it."""

import gc
from typing import Any

from support.loops import Plain, connection, turns
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
