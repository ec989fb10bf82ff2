"""CPython's own tests with classes of ours in the place of its own: the program that conformance.py runs.

Its one argument is a Job in JSON; it writes a Report in JSON to the file that the job names.
"""

import asyncio
import faulthandler
import functools
import json
import select
import selectors
import sys
import unittest
from asyncio import selector_events
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

STOCK_LOOP: Any = asyncio.SelectorEventLoop
STOCK_TRANSPORT: Any = vars(selector_events)["_SelectorSocketTransport"]
STOCK_DATAGRAM: Any = vars(selector_events)["_SelectorDatagramTransport"]
"""Before ours take their places."""


class Job(TypedDict):
    report: str
    swap: str  # of SWAPS
    modules: list[str]
    only: list[str] | None  # the ids of the tests to run; all if None
    seconds: float  # after which one test counts as hung: the program ends with every thread's traceback


class Report(TypedDict):
    """Tests by their ids, and how many objects were made of our classes and of stock's in the same role.

    A test that was to run has passed, or is in one of the two that follow, with the reason.
    """

    loaded: list[str]
    passed: list[str]
    skipped: dict[str, str]
    failed: dict[str, str]
    made: dict[str, int]


Role = tuple[Any, Any]
"""A class of ours, and the one that it replaces, whose constructor may make both."""


def swap_epoll() -> list[Role]:
    import pyepoll

    vars(select)["epoll"] = pyepoll.Epoll
    return []


def swap_selectors() -> list[Role]:
    import pyepoll

    vars(selectors).update(EpollSelector=pyepoll.EpollSelector, DefaultSelector=pyepoll.EpollSelector)
    return [(pyepoll.EpollSelector, pyepoll.EpollSelector)]


def swap_asyncio() -> list[Role]:
    """Let the default loop be ours, and its selector; a loop made with another selector is ours as well."""
    from pyepoll import aio

    replace_in_asyncio(STOCK_LOOP, aio.EventLoop)
    return [*swap_selectors(), (aio.EventLoop, STOCK_LOOP), (aio.SocketTransport, STOCK_TRANSPORT)]


def swap_bases() -> list[Role]:
    """Go further: where a test itself takes asyncio's base class of the loop, it gets ours.

    The tests that make a transport themselves are about the private state of asyncio's.
    """
    from pyepoll import aio

    roles = swap_asyncio()
    replace_in_asyncio(selector_events.BaseSelectorEventLoop, aio.EventLoop)
    if sys.version_info >= (3, 13):  # Before, a test expects that an empty datagram is not sent.
        replace_in_asyncio(STOCK_DATAGRAM, aio.DatagramTransport)
    return roles


SWAPS: dict[str, Callable[[], list[Role]]] = {
    "stock": list,
    "epoll": swap_epoll,
    "selectors": swap_selectors,
    "asyncio": swap_asyncio,
    "bases": swap_bases,
}


def replace_in_asyncio(stock: object, ours: object) -> None:
    """Every name in asyncio's modules that means a class gets ours, and every policy that makes its loops."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "asyncio":
            for key, value in list(vars(module).items()):
                if value is stock:
                    setattr(module, key, ours)
                elif isinstance(value, type) and vars(value).get("_loop_factory") is stock:
                    value._loop_factory = ours  # type: ignore[attr-defined]


def count(role: Role, made: dict[str, int]) -> None:
    """Count from now on how many objects are made of a class of ours, and of stock's in its role."""
    ours, stock = role
    name = ours.__name__
    made |= {name: 0, f"stock {name}": 0}
    for base in {stock} if issubclass(ours, stock) else {stock, ours}:
        init = base.__init__

        @functools.wraps(init)
        def counting(self: object, *args: Any, init: Any = init, **kwargs: Any) -> None:
            made[name if isinstance(self, ours) else f"stock {name}"] += 1
            init(self, *args, **kwargs)

        base.__init__ = counting


def tests_in(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_in(test)
        else:
            yield test


class Result(unittest.TextTestResult):
    """The result of unittest, and the ids of the tests that it started."""

    def __init__(self, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = seconds
        self.started: set[str] = set()

    def startTest(self, test: unittest.TestCase) -> None:
        faulthandler.dump_traceback_later(self.seconds, exit=True)
        self.started.add(test.id())
        super().startTest(test)


def tests_of(entry: Any, known: list[str]) -> list[str]:
    """The ids of the tests that an entry in a result belongs to.

    It can be a subtest, or the set-up of a whole class or module: "setUpClass (test.test_x.Tests)".
    """
    name = getattr(entry, "test_case", entry).id()
    around = name.partition("(")[2].rstrip(")")
    return [each for each in known if each == name or (around and each.startswith(f"{around}."))] or [name]


def run(job: Job) -> Report:
    made: dict[str, int] = {}
    for role in SWAPS[job["swap"]]():
        count(role, made)
    loaded: list[unittest.TestCase] = []
    skipped = {}
    for name in job["modules"]:
        try:
            loaded += tests_in(unittest.defaultTestLoader.loadTestsFromName(name))
        except unittest.SkipTest as why:
            skipped[name] = str(why)
    only = job["only"]
    chosen = [test for test in loaded if only is None or test.id() in only]
    names = [test.id() for test in chosen]
    every = [test.id() for test in loaded] + list(skipped)
    resultclass: Any = functools.partial(Result, seconds=job["seconds"])
    result = unittest.TextTestRunner(verbosity=2, resultclass=resultclass).run(unittest.TestSuite(chosen))
    assert isinstance(result, Result)
    failed = {name: text for test, text in result.failures + result.errors for name in tests_of(test, names)}
    failed |= {name: "no failure" for test in result.unexpectedSuccesses for name in tests_of(test, names)}
    skipped |= {name: "not started" for name in names if name not in result.started}
    skipped |= {name: why for test, why in result.skipped for name in tests_of(test, names)}
    return {
        "loaded": every,
        "passed": [name for name in names if name not in failed and name not in skipped],
        "skipped": {name: why for name, why in skipped.items() if name not in failed},
        "failed": failed,
        "made": made,
    }


if __name__ == "__main__":
    job: Job = json.loads(sys.argv[1])
    faulthandler.dump_traceback_later(job["seconds"], exit=True)
    Path(job["report"]).write_text(json.dumps(run(job)))
