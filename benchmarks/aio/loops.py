"""The event loops that are compared."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["LOOPS", "OURS", "installed", "leave_out"]

LOOPS = {
    "stock": "asyncio:new_event_loop",
    "uvloop": "uvloop:new_event_loop",
    "pyepoll": "pyepoll.aio:new_event_loop",
    "rloop": "rloop:new_event_loop",
    "blazio": "blazio:new_event_loop",
    "zloop": "zloop:new_event_loop",
}
"""The function that makes each loop, as uvicorn spells it."""

OURS = "pyepoll"


def leave_out(what: str, why: str) -> None:
    print(f"aio: without {what}: {why}", file=sys.stderr)


def installed(names: Sequence[str] = ()) -> dict[str, str]:
    """Return the factories of the loops that are installed, of these names only if there are any.

    The others are named on standard error.
    """
    wanted = {name: factory for name, factory in LOOPS.items() if not names or name in names}
    for name, factory in wanted.items():
        if find_spec(factory.partition(":")[0]) is None:
            leave_out(name, "not installed")
    return {
        name: factory for name, factory in wanted.items() if find_spec(factory.partition(":")[0]) is not None
    }
