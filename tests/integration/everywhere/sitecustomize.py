"""With this directory on its path, a program runs on pyepoll, whatever it asks for: epoll, selector or loop.

It is how the clients' own test suites run on pyepoll: Python imports it before anything else, in the
processes that a suite starts too. Each process appends a line to the file $PYEPOLL_TALLY: the class of epoll,
and the number of loops and selectors that were made.
"""

import asyncio
import atexit
import os
import select
import selectors
from collections import Counter
from typing import Any

import pyepoll
import pyepoll.aio

made: Counter[str] = Counter()


def count(cls: Any) -> None:
    """Count the objects that are made of a class, which stays the class that it is."""
    initialize = cls.__init__

    def counting(self: object, *args: object, **kwargs: object) -> None:
        made[cls.__name__] += 1
        initialize(self, *args, **kwargs)

    cls.__init__ = counting


def tell() -> None:
    if path := os.environ.get("PYEPOLL_TALLY"):
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {select.epoll.__module__} {dict(made)}\n")


count(pyepoll.aio.EventLoop)
count(pyepoll.EpollSelector)
atexit.register(tell)

setattr(select, "epoll", pyepoll.Epoll)  # noqa: B010
for name in ("EpollSelector", "DefaultSelector"):
    setattr(selectors, name, pyepoll.EpollSelector)
setattr(asyncio, "SelectorEventLoop", pyepoll.aio.EventLoop)  # noqa: B010
# asyncio.new_event_loop(), asyncio.run() and asyncio.Runner() ask the policy.
policy: Any = asyncio.unix_events
for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
    if hasattr(policy, name):
        getattr(policy, name)._loop_factory = pyepoll.aio.EventLoop
