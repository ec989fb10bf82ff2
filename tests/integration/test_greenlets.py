"""gevent and eventlet patch ``select.epoll`` away: calls that work beside them, and calls that block."""

import importlib.util
import textwrap

import pytest
from serving import QUIETLY, finish

CLIENTS = {
    "gevent": """
        import gevent, gevent.monkey
        from gevent.socket import wait_read
        patch, spawn, sleep = gevent.monkey.patch_all, gevent.spawn, gevent.sleep
        def in_thread(call, *args):
            return gevent.get_hub().threadpool.apply(call, args)
    """,
    "eventlet": f"""
        {QUIETLY}
        import eventlet, eventlet.hubs, eventlet.tpool
        patch, spawn, sleep = eventlet.monkey_patch, eventlet.spawn, eventlet.sleep
        def wait_read(fd):
            eventlet.hubs.trampoline(fd, read=True)
        in_thread = eventlet.tpool.execute
    """,
}

ORDERS = {"before": "import pyepoll; patch()", "after": "patch(); import pyepoll"}

TICKS = """
    import os, select, selectors, time
    assert not hasattr(select, "epoll") and not hasattr(selectors, "EpollSelector")
    ticks = 0

    def tick():
        global ticks
        while True:
            ticks += 1
            sleep(0.001)

    def during(call, *args):
        before = ticks
        result = call(*args)
        return ticks - before, result

    spawn(tick)
    sleep(0.01)
    assert ticks
    read, write = os.pipe()
    epoll = pyepoll.Epoll()
    epoll.register(read, pyepoll.Event.IN, data="ready")
    selector = pyepoll.EpollSelector()
    selector.register(read, selectors.EVENT_READ)
"""

BLOCKS = """
    # A wait is the kernel's: no green thread runs until it ends.
    assert during(epoll.poll, 0.1) == (0, [])
    assert during(lambda: list(epoll.wait(0.1))) == (0, [])
    assert during(selector.select, 0.1) == (0, [])
    # A wait that does not sleep is no harm, and still right.
    os.write(write, b"x")
    assert epoll.poll(0) == [("ready", pyepoll.Event.IN)]
    assert [key.fd for key, _ in selector.select(0)] == [read]
    print("done")
"""

ASYNCIO = """
    # The same holds for a loop of asyncio's: it blocks the hub, and is at home in a thread.
    import asyncio

    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def ask(port, seed):
        from content import body
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(body(seed, 300_000))
        writer.write_eof()
        assert await reader.read() == body(seed, 300_000)
        writer.close()
        await writer.wait_closed()

    async def main():
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.gather(*(ask(port, seed) for seed in range(8)))
        await asyncio.sleep(0.05)
        return type(asyncio.get_running_loop()) is pyepoll.aio.EventLoop

    assert during(pyepoll.aio.run, main()) == (0, True)
    passed, right = during(in_thread, lambda: pyepoll.aio.run(main()))
    assert passed > 1 and right
    print("done")
"""

COOPERATES = """
    # An epoll is a file that can be waited for like any other: first by the hub, then without a sleep.
    def write_later():
        sleep(0.05)
        os.write(write, b"x")

    for waited in (epoll, selector):
        spawn(write_later)
        passed, _ = during(wait_read, waited.fileno())
        assert passed > 1
        assert waited.poll(0) if waited is epoll else waited.select(0)
        os.read(read, 1)

    # Or by a thread, which a real one ends.
    passed, got = during(in_thread, epoll.poll, 0.1)
    assert passed > 1 and got == []
    # A Waker wakes a wait of the hub's.
    with pyepoll.Waker() as waker:
        epoll.register(waker, pyepoll.Event.IN, data="woken")
        def wake_later():
            sleep(0.05)
            waker.wake()
        spawn(wake_later)
        passed, _ = during(wait_read, epoll.fileno())
        assert passed > 1 and epoll.poll(0) == [("woken", pyepoll.Event.IN)]
        epoll.unregister(waker)
    print("done")
"""

SERVES = """
    # A server with one Epoll in one green thread, asked by many others.
    import socket
    from content import body

    def serve(listener):
        with pyepoll.Epoll() as epoll:
            epoll.register(listener, data=None)
            while True:
                wait_read(epoll.fileno())
                for connection, _ in epoll.wait(0):
                    if connection is None:
                        connection, _ = listener.accept()
                        epoll.register(connection, pyepoll.Event.IN, data=connection)
                    elif data := connection.recv(65536):
                        connection.sendall(data)
                    else:
                        epoll.unregister(connection)
                        connection.close()

    def ask(seed, port, answered):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for size in (1, 1000, 100_000):
                sent, received = body(seed, size), b""
                connection.sendall(sent)
                while len(received) < size:
                    received += connection.recv(65536)
                assert received == sent
        answered.append(seed)

    listener = socket.create_server(("127.0.0.1", 0))
    spawn(serve, listener)
    answered = []
    for seed in range(20):
        spawn(ask, seed, listener.getsockname()[1], answered)
    deadline = time.monotonic() + 20
    while len(answered) < 20:
        assert time.monotonic() < deadline, answered
        sleep(0.01)
    assert ticks > 1
    print("done")
"""


IMPORT_LOOP = {"before": "import pyepoll.aio; patch()", "after": "patch(); import pyepoll.aio"}


def check(client: str, *parts: str) -> None:
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed")
    assert finish("\n".join(map(textwrap.dedent, (CLIENTS[client], *parts)))) == "done\n"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("program", [BLOCKS, COOPERATES, SERVES], ids=["blocks", "cooperates", "serves"])
@pytest.mark.parametrize("client", CLIENTS)
def test_green_threads_run_pyepoll_in_either_import_order(client: str, program: str, order: str) -> None:
    check(client, ORDERS[order], TICKS, program)


@pytest.mark.parametrize("order", IMPORT_LOOP)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_loop_runs_beside_green_threads(client: str, order: str) -> None:
    check(client, IMPORT_LOOP[order], TICKS, ASYNCIO)
