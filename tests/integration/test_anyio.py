"""anyio: its asyncio backend takes a ``loop_factory``."""

import functools
from typing import Any

import pytest
from content import body
from proof import ASYNCIO, running_loop

import pyepoll.aio

anyio: Any = pytest.importorskip("anyio")
to_thread: Any = pytest.importorskip("anyio.to_thread")

CONNECTIONS = 16
PYEPOLL = {"loop_factory": pyepoll.aio.new_event_loop}


async def echo(stream: Any) -> None:
    async with stream:
        async for piece in stream:
            await stream.send(piece)


async def talk(port: int, seed: int, answers: dict[int, bool]) -> None:
    sent = body(seed, 2_000_000)
    received = bytearray()
    async with await anyio.connect_tcp("127.0.0.1", port) as stream, anyio.create_task_group() as group:
        group.start_soon(stream.send, sent)
        while len(received) < len(sent):
            received += await stream.receive()
    answers[seed] = received == sent


async def serve_and_talk() -> dict[str, str]:
    answers: dict[int, bool] = {}
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as server:
            server.start_soon(listener.serve, echo)
            async with anyio.create_task_group() as clients:
                for seed in range(CONNECTIONS):
                    clients.start_soon(talk, port, seed, answers)
            server.cancel_scope.cancel()
    assert answers == dict.fromkeys(range(CONNECTIONS), True)
    return running_loop()


async def use_the_rest() -> dict[str, str]:
    """A process, threads that call back, a deadline."""
    done = await anyio.run_process(["tr", "a-z", "A-Z"], input=b"shout" * 100_000)
    assert done.stdout == b"SHOUT" * 100_000
    async with anyio.create_task_group() as group:
        for _ in range(CONNECTIONS):
            group.start_soon(to_thread.run_sync, functools.partial(anyio.from_thread.run, anyio.sleep, 0.001))
    with anyio.move_on_after(0.05) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    return running_loop()


@pytest.mark.parametrize("main", [serve_and_talk, use_the_rest])
def test_anyio_runs_on_our_loop(main: Any) -> None:
    assert anyio.run(main, backend_options=PYEPOLL) == ASYNCIO
