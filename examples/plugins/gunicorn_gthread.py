"""gunicorn's worker with threads, with a poller of pyepoll.

    $ export PYTHONPATH=examples/plugins
    $ gunicorn --worker-class gunicorn_gthread.PyepollThreadWorker --threads 4 package:app

A worker class that is not gunicorn's own must be importable, hence ``PYTHONPATH``. New and kept-alive
connections wait in the poller. It is made after the fork, so each worker has its own.
"""

from typing import Any

from gunicorn.workers.gthread import ThreadWorker

import pyepoll


class PyepollThreadWorker(ThreadWorker):
    poller: Any

    def run(self) -> None:
        # Nothing is registered yet: the inherited method begins with that.
        self.poller.close()
        self.poller = pyepoll.EpollSelector()
        super().run()
