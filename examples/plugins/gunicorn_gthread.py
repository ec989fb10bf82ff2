"""gunicorn's worker with threads, with a poller of pyepoll.

    $ gunicorn --worker-class gunicorn_gthread.PyepollThreadWorker --threads 4 package:app

The directory of this file has to be on the path (``PYTHONPATH``), as for every worker class that is not
gunicorn's own. The poller is where connections wait that are new or kept alive; it is made after the fork, so
each worker has its own.
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
