"""The asyncio servers: ``python -m benchmarks.aio.serve KIND FACTORY CERTIFICATE SECONDS``.

FACTORY names the function that makes the event loop, as uvicorn spells it: ``pyepoll.aio:new_event_loop``.
CERTIFICATE is a file that has the key too; only TLS needs it. Each server prints its port and serves
until it is killed, for so many seconds at the most. Each is written as the documentation of asyncio
would write it, and is the same for every loop.
"""

import asyncio
import pkgutil
import signal
import socket
import sys
from typing import Any, cast

from ..messages import BODY, MESSAGE

__all__: list[str] = []

READ_MAX = 65536
HEAD = 16
"""How much of an answer in two writes is in the first."""
HALF = len(BODY) // 2


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclass.
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoMessages(Echo):
    """Answer message by message, as a typical protocol does."""

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), len(MESSAGE)):
            self.transport.write(data[start : start + len(MESSAGE)])


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_MAX):
        writer.write(data)
        await writer.drain()
    writer.close()


class EchoInTwo(Echo):
    """Answer in two writes, as a protocol with a header and a body does."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:HEAD])
        self.transport.write(data[HEAD:])


async def echo_sock(conn: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with conn:
        while data := await loop.sock_recv(conn, READ_MAX):
            await loop.sock_sendall(conn, data)


async def serve_sock(listener: socket.socket) -> None:
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    while True:
        conn, _ = await loop.sock_accept(listener)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(echo_sock(conn))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request alike: an ASGI application."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def serve_uvicorn(listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        hello,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=3600,
    )
    await uvicorn.Server(config).serve([listener])


async def serve_aiohttp(listener: socket.socket, *, streamed: bool) -> None:
    from aiohttp import web

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp sends the header with the first part of the body, and the second part in another write."""
        response = web.StreamResponse()
        response.content_type, response.content_length = "text/plain", len(BODY)
        await response.prepare(request)
        await response.write(BODY[:HALF])
        await response.write_eof(BODY[HALF:])
        return response

    application = web.Application()
    application.router.add_get("/", stream if streamed else answer)
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=3600)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await asyncio.get_running_loop().create_future()


async def serve(kind: str, listener: socket.socket, certificate: str) -> None:
    loop, backlog = asyncio.get_running_loop(), socket.SOMAXCONN
    server: asyncio.AbstractServer
    match kind:
        case "protocol":
            server = await loop.create_server(Echo, sock=listener, backlog=backlog)
        case "messages":
            server = await loop.create_server(EchoMessages, sock=listener, backlog=backlog)
        case "two_writes":
            server = await loop.create_server(EchoInTwo, sock=listener, backlog=backlog)
        case "streams":
            server = await asyncio.start_server(echo_stream, sock=listener, backlog=backlog)
        case "tls":
            import ssl  # Not every Python has it.

            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server = await loop.create_server(Echo, sock=listener, ssl=tls, backlog=backlog)
        case "uvicorn":
            await serve_uvicorn(listener)
            return
        case "aiohttp" | "aiohttp_streamed":
            await serve_aiohttp(listener, streamed=kind == "aiohttp_streamed")
            return
        case "sock":
            await serve_sock(listener)
            return
        case _:
            raise ValueError(f"no such server: {kind}")
    # Not serve_forever(), which rloop has not.
    await loop.create_future()
    server.close()


def main() -> None:
    kind, factory, certificate, seconds = sys.argv[1:]
    signal.alarm(int(seconds))
    with socket.create_server(("127.0.0.1", 0), backlog=socket.SOMAXCONN) as listener:
        listener.setblocking(False)
        # A loop sets this on the sockets of a listener that it made itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(listener.getsockname()[1], flush=True)
        with asyncio.Runner(loop_factory=pkgutil.resolve_name(factory)) as runner:
            runner.run(serve(kind, listener, certificate))


if __name__ == "__main__":
    main()
