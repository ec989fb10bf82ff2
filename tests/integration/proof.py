"""How a server under test tells what it runs on. Imported by the servers' processes."""

import asyncio
from typing import Any

import pyepoll
import pyepoll.aio

ASYNCIO = {"loop": "pyepoll", "selector": "pyepoll"}
"""What ``running_loop`` answers when all is well."""


def name(what: object, expected: type) -> str:
    """``pyepoll`` if it is of the very class expected, else what it is instead."""
    return "pyepoll" if type(what) is expected else f"{type(what).__module__}.{type(what).__qualname__}"


def running_loop() -> dict[str, str]:
    loop = asyncio.get_running_loop()
    return {
        "loop": name(loop, pyepoll.aio.EventLoop),
        "selector": name(getattr(loop, "_selector", None), pyepoll.EpollSelector),
    }


def polled(epoll: Any) -> dict[str, str]:
    """What an epoll is, provided that somebody has waited on it."""
    found = name(epoll, pyepoll.Epoll)
    if found == "pyepoll" and not epoll.stats().waits:
        found = "nobody waited"
    return {"epoll": found}
