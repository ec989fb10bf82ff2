"""A plugin of pytest: uvloop's own tests, run with asyncio's loop or with ours in the place of uvloop's.

Its tests come in two kinds: those for any loop run once for asyncio (AIO in their names) and once for uvloop
(UV), others only for uvloop. Both get the loop named in PYEPOLL_UVLOOP_SUITE.
"""

import asyncio
import importlib
import os
from typing import Any

from pyepoll import aio

LOOPS: dict[str, Any] = {"stock": asyncio.SelectorEventLoop, "pyepoll": aio.new_event_loop}
_make = LOOPS[os.environ["PYEPOLL_UVLOOP_SUITE"]]


def new_loop(self: Any) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = _make()
    return loop


def new_policy(self: Any) -> Any:
    """A policy; the tests that ask for one are skipped where CPython has none."""
    base: Any = asyncio.DefaultEventLoopPolicy
    return type("Policy", (base,), {"_loop_factory": staticmethod(_make)})()


_testbase = importlib.import_module("uvloop._testbase")
for _case in _testbase.UVTestCase, _testbase.AIOTestCase:
    _case.new_loop = new_loop
    _case.new_policy = new_policy
    # It asks for the name of the loop's module, which must begin with "asyncio.".
    _case.is_asyncio_loop = lambda self: True
