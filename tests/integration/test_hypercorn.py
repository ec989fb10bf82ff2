"""hypercorn: its ``serve`` runs on the loop that calls it."""

import functools
from pathlib import Path

import pytest
from proof import ASYNCIO
from serving import at_once, exercise, python, runs_on
from websocket import converse

pytest.importorskip("hypercorn")

PROGRAM = """
import asyncio, signal
import pyepoll.aio
from asgi_app import app
from hypercorn.asyncio import serve
from hypercorn.config import Config

async def main():
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    config = Config.from_mapping(bind="127.0.0.1:0", errorlog="-", websocket_max_message_size=1_000_000)
    await serve(app, config, shutdown_trigger=stop.wait)

pyepoll.aio.run(main())
"""


def test_hypercorn_serves(tmp_path: Path) -> None:
    with python(tmp_path, "-c", PROGRAM) as server:
        assert runs_on(server) == ASYNCIO
        exercise(server)
        server.stop()
        assert "the application has shut down" in server.log.read_text()


def test_hypercorn_speaks_websocket(tmp_path: Path) -> None:
    with python(tmp_path, "-c", PROGRAM) as server:
        assert runs_on(server) == ASYNCIO
        at_once(*[functools.partial(converse, server.port, seed) for seed in range(4)])
        server.stop()
