"""The application that gunicorn's threads serve."""

import gc
import json
from collections.abc import Callable, Iterable
from typing import Any

from content import STREAM
from proof import name

import pyepoll


def app(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [])
        return STREAM
    answer = json.dumps(proof()).encode() if path == "/proof" else environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def proof() -> dict[str, str]:
    """The class of the poller of this process's worker."""
    from gunicorn.workers.gthread import ThreadWorker

    # After the fork there are copies of the workers that were started before this one: they have no poller.
    workers = [each for each in gc.get_objects() if isinstance(each, ThreadWorker)]
    (poller,) = (worker.poller for worker in workers if worker.poller is not None)
    return {"poller": name(poller, pyepoll.EpollSelector)}
