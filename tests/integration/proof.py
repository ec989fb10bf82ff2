"""A server under test names the classes that it runs on. Imported by the servers' processes."""

import asyncio
from typing import Any

import pyepoll
import pyepoll.aio

ASYNCIO = {"loop": "pyepoll", "selector": "pyepoll"}
"""The answer of ``running_loop`` if all is well."""


def name(what: object, expected: type) -> str:
    """``pyepoll`` if it is of the very class expected, else its class."""
    return "pyepoll" if type(what) is expected else f"{type(what).__module__}.{type(what).__qualname__}"


def running_loop() -> dict[str, str]:
    loop = asyncio.get_running_loop()
    return {
        "loop": name(loop, pyepoll.aio.EventLoop),
        "selector": name(getattr(loop, "_selector", None), pyepoll.aio.LoopSelector),
    }


def polled(epoll: Any) -> dict[str, str]:
    """The class of an epoll, provided that it has been waited on."""
    found = name(epoll, pyepoll.Epoll)
    if found == "pyepoll" and not epoll.stats().waits:
        found = "no wait yet"
    return {"epoll": found}
