"""gunicorn's processes, each with uvicorn on the loop of pyepoll.

    $ PYTHONPATH=examples/plugins gunicorn --worker-class gunicorn_uvicorn.PyepollUvicornWorker package:app

It needs the package ``uvicorn-worker``. A worker class that is not gunicorn's own must be importable, hence
``PYTHONPATH``.
"""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class PyepollUvicornWorker(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "loop": "pyepoll.aio:new_event_loop",
    }
