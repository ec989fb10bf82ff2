"""trio finds ``select.epoll`` in a module that can be replaced by pyepoll."""

import textwrap

import pytest
from serving import finish

pytest.importorskip("trio")

SWAP = {
    # One line, before the first run.
    "its module": "import pyepoll, trio; trio._core._io_epoll.select = pyepoll",
    # One line, before trio is imported or after, for every importer of that module.
    "select": "import pyepoll, select; select.epoll = pyepoll.Epoll; import trio",
}

PROGRAM = """
    import functools
    import pyepoll
    from content import body

    answers = {}

    async def echo(stream):
        async for piece in stream:
            await stream.send_all(piece)

    async def talk(port, seed):
        sent = body(seed, 2_000_000)
        received = bytearray()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, sent)
                while len(received) < len(sent):
                    received += await stream.receive_some(65536)
        answers[seed] = received == sent

    async def cancelled(end):
        with trio.move_on_after(0.02) as scope:
            await trio.lowlevel.wait_readable(end)
        assert scope.cancelled_caught

    async def main():
        epoll = trio._core._run.GLOBAL_RUN_CONTEXT.runner.io_manager._epoll
        assert type(epoll) is pyepoll.Epoll, type(epoll)
        async with trio.open_nursery() as server:
            serve = functools.partial(trio.serve_tcp, echo, 0, host="127.0.0.1")
            listeners = await server.start(serve)
            port = listeners[0].socket.getsockname()[1]
            async with trio.open_nursery() as clients:
                for seed in range(16):
                    clients.start_soon(talk, port, seed)
            server.cancel_scope.cancel()
        assert answers == dict.fromkeys(range(16), True), answers
        # A process, a thread, and waits that are given up.
        done = await trio.run_process(["tr", "a-z", "A-Z"], stdin=b"shout" * 100_000, capture_stdout=True)
        assert done.stdout == b"SHOUT" * 100_000
        await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 0.01)
        a, b = trio.socket.socketpair()
        for _ in range(3):
            await cancelled(a)
        await b.send(b"x")
        await trio.lowlevel.wait_readable(a)
        a.close()
        b.close()
        stats = epoll.stats()
        assert stats.waits > 16, stats
        return epoll

    epoll = trio.run(main)
    assert epoll.closed
    print("done")
"""


ANYIO = """
    import anyio
    import pyepoll

    async def main():
        epoll = trio._core._run.GLOBAL_RUN_CONTEXT.runner.io_manager._epoll
        assert type(epoll) is pyepoll.Epoll, type(epoll)
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with anyio.create_task_group() as server:
                server.start_soon(listener.serve, lambda stream: stream.send(b"hello"))
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    assert await stream.receive() == b"hello"
                server.cancel_scope.cancel()
        assert epoll.stats().waits

    anyio.run(main, backend="trio")
    print("done")
"""


@pytest.mark.parametrize("where", SWAP)
def test_trio_runs_on_our_epoll(where: str) -> None:
    assert finish(f"{SWAP[where]}\n" + textwrap.dedent(PROGRAM)) == "done\n"


def test_trio_runs_under_anyio() -> None:
    pytest.importorskip("anyio")
    assert finish(SWAP["its module"] + "\n" + textwrap.dedent(ANYIO)) == "done\n"
