"""aiohttp: the server in a process of its own, the client in the test."""

import asyncio
import functools
import io
from pathlib import Path
from typing import Any

import pytest
from content import STREAM, body
from proof import ASYNCIO, running_loop
from serving import AT_ONCE, SIZES, Server, at_once, exercise, python, runs_on
from websocket import converse

import pyepoll.aio

aiohttp: Any = pytest.importorskip("aiohttp")

PROGRAM = """
import socket
import pyepoll.aio
from aiohttp import WSMsgType, web
from content import STREAM
from proof import running_loop

routes = web.RouteTableDef()

@routes.get("/proof")
async def proof(request):
    return web.json_response(running_loop())

@routes.post("/echo")
async def echo(request):
    return web.Response(body=await request.read())

@routes.get("/stream")
async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for piece in STREAM:
        await response.write(piece)
    return response

@routes.get("/file")
async def file(request):
    return web.FileResponse("large")

@routes.get("/")
async def websocket(request):
    response = web.WebSocketResponse(max_msg_size=0)
    await response.prepare(request)
    async for message in response:
        if message.type is WSMsgType.TEXT:
            await response.send_str(message.data)
        else:
            await response.send_bytes(message.data)
    return response

async def shut_down(app):
    print("the application has shut down", flush=True)

app = web.Application(client_max_size=1 << 24)
app.add_routes(routes)
app.on_cleanup.append(shut_down)
listener = socket.create_server(("127.0.0.1", 0))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
web.run_app(app, sock=listener, print=None, loop=pyepoll.aio.new_event_loop())
"""


def test_aiohttp_serves(tmp_path: Path) -> None:
    with python(tmp_path, "-c", PROGRAM) as server:
        assert runs_on(server) == ASYNCIO
        exercise(server)
        at_once(*[functools.partial(converse, server.port, seed) for seed in range(4)])
        server.stop()
        assert "the application has shut down" in server.log.read_text()


def test_aiohttp_fetches(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(body(99, 5_000_000))
    with python(tmp_path, "-c", PROGRAM) as server:
        assert pyepoll.aio.run(fetch_all(server)) == ASYNCIO
        server.stop()


async def fetch_all(server: Server) -> dict[str, str]:
    url = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(
            *(fetch(session, url, seed) for seed in range(AT_ONCE)),
            *(talk(session, url, seed) for seed in range(2)),
        )
    # The connections close in the next turns of the loop.
    await asyncio.sleep(0.05)
    return running_loop()


async def fetch(session: Any, url: str, seed: int) -> None:
    for size in SIZES:
        async with session.post(f"{url}/echo", data=io.BytesIO(body(seed, size))) as response:
            assert await response.read() == body(seed, size)
    async with session.get(f"{url}/stream") as response:
        pieces = [piece async for piece in response.content.iter_chunked(10_000)]
        assert b"".join(pieces) == b"".join(STREAM)
    # The server sends it with sendfile.
    async with session.get(f"{url}/file") as response:
        assert await response.read() == body(99, 5_000_000)


async def talk(session: Any, url: str, seed: int) -> None:
    async with session.ws_connect(url, max_msg_size=0) as connection:
        for size in SIZES[1:]:
            await connection.send_bytes(body(seed, size))
            assert await connection.receive_bytes() == body(seed, size)
