"""curio: its kernel takes a selector."""

import multiprocessing.connection
from typing import Any

import pytest
from content import body

import pyepoll

if not hasattr(multiprocessing.connection, "CHALLENGE"):
    pytest.skip("curio 1.6, the last release, needs Python 3.11", allow_module_level=True)
curio: Any = pytest.importorskip("curio")

CONNECTIONS = 16


async def echo(client: Any, address: object) -> None:
    while piece := await client.recv(65_536):
        await client.sendall(piece)


async def talk(port: int, seed: int) -> bool:
    sent = body(seed, 1_000_000)
    received = bytearray()
    async with await curio.open_connection("127.0.0.1", port) as connection:
        sender = await curio.spawn(connection.sendall, sent)
        while len(received) < len(sent):
            received += await connection.recv(65_536)
        await sender.join()
    return received == sent


async def serve_and_talk() -> None:
    listener = curio.tcp_server_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = await curio.spawn(curio.network.run_server, listener, echo)
    clients = [await curio.spawn(talk, port, seed) for seed in range(CONNECTIONS)]
    assert [await client.join() for client in clients] == [True] * CONNECTIONS
    # A wait that is given up, and a thread.
    a, b = curio.socket.socketpair()
    async with a, b:
        with pytest.raises(curio.TaskTimeout):
            await curio.timeout_after(0.02, a.recv, 1)
        await b.send(b"x")
        assert await a.recv(1) == b"x"
    assert await curio.run_in_thread(sum, [1, 2, 3]) == 6
    await server.cancel()


class Counting(pyepoll.EpollSelector):
    selects = 0

    def select(self, timeout: float | None = None) -> Any:
        self.selects += 1
        return super().select(timeout)


def test_curio_runs_on_our_selector() -> None:
    selector = Counting()
    curio.run(serve_and_talk, selector=selector)
    assert selector.selects > CONNECTIONS
    assert not selector.get_map(), "it is not closed"
