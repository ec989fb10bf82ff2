"""A transport that has no memory for data accepts none of it."""

import contextlib
import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Plain, connection, soon, tcp_pair, turns
from support.no_memory import MOST_ALLOCATIONS, without_memory
from test_aio_edges import EMPTIED, arrive
from test_aio_edges import arrived as arrived_at
from test_aio_gather import arrived, gathering

import pyepoll

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


@pytest.mark.parametrize("end", [False, True])
def test_an_edge_is_not_lost(end: bool) -> None:
    """Connections that the kernel reports to only once (test_aio_edges.py) are read, or end with an error."""
    count = 70  # More than the queue of handles has room for: it grows in the turn.

    def outcome(start: int) -> tuple[bool, set[str]]:
        pairs = [tcp_pair() for _ in range(count)]
        with contextlib.closing(pyepoll.aio.new_event_loop()) as loop, contextlib.ExitStack() as stack:
            loop.set_exception_handler(lambda loop, context: None)
            transports, protocols = [], []
            for near, peer in pairs:
                seen = Plain()
                transport, _ = loop.run_until_complete(
                    loop.create_connection(lambda seen=seen: seen, sock=near)
                )
                loop.run_until_complete(arrive(seen, stack.enter_context(peer)))
                transports.append(transport)
                protocols.append(seen)
            for _, peer in pairs:
                peer.send(b"x" * 200)
                if end:
                    peer.shutdown(socket.SHUT_WR)
            arrived_at(transports[-1])
            turn: Callable[[], object] = getattr(loop, "_run_once")  # noqa: B009
            loop.call_soon(int)
            done = without_memory(start, turn)
            for seen in protocols:
                loop.run_until_complete(soon(lambda seen=seen: seen.lost() or seen.has(EMPTIED + 200)))  # type: ignore[misc]
            results = {"lost" if seen.lost() and seen.seen[-1][1] else "read" for seen in protocols}
            for transport in transports:
                transport.abort()
            loop.run_until_complete(turns())
        return done, results

    gc.disable()
    try:
        outcomes = [outcome(start) for start in range(40)]
    finally:
        gc.enable()
    assert {done for done, _ in outcomes} == {True, False}
    assert end or {"lost", "read"} in [results for _, results in outcomes]
