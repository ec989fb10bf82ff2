"""tornado: its IOLoop is the loop that runs."""

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
from content import STREAM, body
from proof import ASYNCIO, running_loop
from serving import AT_ONCE, SIZES, Server, at_once, exercise, python, runs_on
from websocket import converse

import pyepoll.aio

pytest.importorskip("tornado")

PROGRAM = """
import asyncio, json, signal
import pyepoll.aio
from content import STREAM
from proof import running_loop
from tornado import httpserver, ioloop, netutil, web, websocket

class Proof(web.RequestHandler):
    def get(self):
        assert ioloop.IOLoop.current().asyncio_loop is asyncio.get_running_loop()
        self.write(running_loop())

class Echo(web.RequestHandler):
    def post(self):
        self.write(self.request.body)

class Stream(web.RequestHandler):
    async def get(self):
        for piece in STREAM:
            self.write(piece)
            await self.flush()

class Socket(websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message, binary=isinstance(message, bytes))

async def main():
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    app = web.Application([("/proof", Proof), ("/echo", Echo), ("/stream", Stream), ("/", Socket)])
    server = httpserver.HTTPServer(app)
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    print("listening on 127.0.0.1:%d" % sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.stop()
    await server.close_all_connections()

pyepoll.aio.run(main())
"""


def test_tornado_serves(tmp_path: Path) -> None:
    with python(tmp_path, "-c", PROGRAM) as server:
        assert runs_on(server) == ASYNCIO
        exercise(server)
        at_once(*[functools.partial(converse, server.port, seed) for seed in range(4)])
        server.stop()


def test_tornado_fetches(tmp_path: Path) -> None:
    with python(tmp_path, "-c", PROGRAM) as server:
        assert pyepoll.aio.run(fetch_all(server)) == ASYNCIO
        server.stop()


async def fetch_all(server: Server) -> dict[str, str]:
    httpclient: Any = pytest.importorskip("tornado.httpclient")
    client = httpclient.AsyncHTTPClient(force_instance=True)
    url = f"http://127.0.0.1:{server.port}"

    async def fetch(seed: int) -> None:
        for size in SIZES:
            answer = await client.fetch(f"{url}/echo", method="POST", body=body(seed, size))
            assert answer.body == body(seed, size)
        pieces: list[bytes] = []
        await client.fetch(f"{url}/stream", streaming_callback=pieces.append)
        assert b"".join(pieces) == b"".join(STREAM)

    await asyncio.gather(*map(fetch, range(AT_ONCE)))
    client.close()
    return running_loop()
