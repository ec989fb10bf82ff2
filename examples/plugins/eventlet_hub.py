"""A hub for eventlet on ``pyepoll.Epoll``.

    $ EVENTLET_HUB=eventlet_hub:Hub PYTHONPATH=examples/plugins python program.py

or, before the first green thread, ``eventlet.hubs.use_hub("eventlet_hub:Hub")``. It must be importable,
hence ``PYTHONPATH``.

Timers have nanosecond resolution; eventlet's own hub rounds up to the next millisecond. After a fork, the
child has its own hub instead of sharing its parent's.
"""

from typing import Any

from eventlet.hubs import epolls

import pyepoll


def is_available() -> bool:
    """Whether this hub can be used here: eventlet asks."""
    return True


class Hub(epolls.Hub):
    poll: Any

    def __init__(self, clock: object = None) -> None:
        super().__init__(clock)
        # Nothing is registered yet.
        self.poll.close()
        self.poll = pyepoll.Epoll()
