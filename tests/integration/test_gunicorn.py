"""gunicorn, with the worker classes of ``examples/plugins``."""

import functools
from pathlib import Path

import pytest
from proof import ASYNCIO
from serving import DEADLINE, at_once, command_on_page, exercise, python, runs_on, session
from support.threads import until
from websocket import converse

pytest.importorskip("gunicorn")

OPTIONS = ("--workers", "2", "--keep-alive", "30", "--worker-tmp-dir", ".", "--no-control-socket")


def test_gunicorn_serves_with_threads(tmp_path: Path) -> None:
    with python(tmp_path, *command_on_page("gunicorn_gthread."), *OPTIONS) as server:
        until(lambda: server.log.read_text().count("Booting worker") == 2, DEADLINE)
        assert runs_on(server) == {"poller": "pyepoll"}
        exercise(server)
        assert len(session(server.pid)) == 3
        server.stop()


def test_gunicorn_serves_with_uvicorn(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn_worker")
    with python(tmp_path, *command_on_page("gunicorn_uvicorn."), *OPTIONS) as server:
        until(lambda: server.log.read_text().count("Application startup complete") == 2, DEADLINE)
        assert runs_on(server) == ASYNCIO
        exercise(server)
        at_once(*[functools.partial(converse, server.port, seed) for seed in range(4)])
        assert len(session(server.pid)) == 3
        server.stop()
        assert server.log.read_text().count("the application has shut down") == 2
