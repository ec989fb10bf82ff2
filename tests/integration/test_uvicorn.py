"""uvicorn, with its loop named on the command line."""

import functools
import signal
from pathlib import Path

import pytest
from proof import ASYNCIO
from serving import DEADLINE, at_once, command_on_page, exercise, python, runs_on, session
from support.threads import until
from websocket import converse

pytest.importorskip("uvicorn")

# uvicorn leaves its listening sockets to the collector.
COMMAND = ("-W", "ignore:unclosed <socket", *command_on_page("uvicorn --loop"), "--no-access-log")


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_uvicorn_serves(tmp_path: Path, parser: str) -> None:
    pytest.importorskip(parser)
    with python(tmp_path, *COMMAND, "--http", parser) as server:
        assert runs_on(server) == ASYNCIO
        exercise(server)
        server.stop(status=-signal.SIGTERM)
        assert "the application has shut down" in server.log.read_text()


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_uvicorn_speaks_websocket(tmp_path: Path, implementation: str) -> None:
    pytest.importorskip("wsproto" if implementation == "wsproto" else "websockets")
    with python(tmp_path, *COMMAND, "--ws", implementation, "--ws-max-size", "1000000") as server:
        assert runs_on(server) == ASYNCIO
        at_once(*[functools.partial(converse, server.port, seed) for seed in range(4)])
        server.stop(signal.SIGINT)


def test_uvicorn_serves_from_several_processes(tmp_path: Path) -> None:
    with python(tmp_path, *COMMAND, "--workers", "2") as server:
        until(lambda: server.log.read_text().count("Application startup complete") == 2, DEADLINE)
        assert runs_on(server) == ASYNCIO
        exercise(server)
        assert len(session(server.pid)) >= 3
        server.stop()
