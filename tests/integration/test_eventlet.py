"""eventlet, with the hub of ``examples/plugins``."""

import importlib.util
from pathlib import Path

import pytest
from serving import QUIETLY, exercise, python, runs_on

if importlib.util.find_spec("eventlet") is None:
    pytest.skip("eventlet is not installed", allow_module_level=True)

SERVER = (
    f"{QUIETLY}\n"
    + """
from proof import polled
import eventlet
eventlet.monkey_patch()
import json, signal, sys
import eventlet.wsgi
from content import STREAM
from eventlet.hubs import get_hub

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [])
        return STREAM
    answer = json.dumps(polled(get_hub().poll)).encode() if path == "/proof" else environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
listener = eventlet.listen(("127.0.0.1", 0))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
eventlet.wsgi.server(listener, app, log_output=False)
"""
)


def test_eventlet_serves(tmp_path: Path) -> None:
    with python(tmp_path, "-c", SERVER, EVENTLET_HUB="eventlet_hub:Hub") as server:
        exercise(server)
        # Not before: a first request that is there already is answered without a wait.
        assert runs_on(server) == {"epoll": "pyepoll"}
        server.stop()
