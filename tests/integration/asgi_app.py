"""The application that every ASGI server under test serves."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from content import STREAM
from proof import running_loop

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await answer(scope["path"], receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    for what in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{what}"
        await send({"type": f"lifespan.{what}.complete"})
    print("the application has shut down", flush=True)


async def answer(path: str, receive: Receive, send: Send) -> None:
    received = bytearray()
    more = True
    while more:
        message = await receive()
        received += message.get("body", b"")
        more = message.get("more_body", False)
    pieces = {"/stream": STREAM, "/proof": [json.dumps(running_loop()).encode()]}.get(path, [bytes(received)])
    headers = [(b"content-length", b"%d" % sum(map(len, pieces)))] if path != "/stream" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def websocket(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})
