"""CPython's own tests pass with our classes in the place of its own, count for count.

They are test.test_epoll with ``select.epoll`` swapped, test.test_selectors with ``EpollSelector`` and
``DefaultSelector``, and test.test_asyncio with the default event loop. Ours and stock must have the same
tests and skip the same ones, and none may fail on ours that stock passes. A test that fails on ours runs once
more, alone, before it counts, as some of CPython's tests go by the clock; the figures name it. Stock runs
only the tests that ours skips or fails, to show that it does so too; with --long it runs everything.

Programs that CPython's tests start have stock's classes.
"""

import collections
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.conformance import BASE_EVENTS, CANNOT_HOLD, Comparison, Runs, compare
from support.processes import HANG

SELECTOR_EVENTS = "test.test_asyncio.test_selector_events"


def directory(package: str) -> str | None:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None


ASYNCIO = directory("test.test_asyncio")

pytestmark = pytest.mark.skipif(
    ASYNCIO is None,
    reason=(
        f"{sys.base_prefix} has no test.test_asyncio: this Python comes without CPython's test suite, "
        f"which on Debian is in the package libpython3.{sys.version_info.minor}-testsuite"
    ),
)


class Suite(NamedTuple):
    swap: str  # of cpython_suite.SWAPS
    modules: list[str]


def asyncio_suites() -> dict[str, Suite]:
    """test.test_asyncio in parts that take 8 to 20 seconds each, most of it asleep."""
    every = {path.stem for path in Path(ASYNCIO or "").glob("test_*.py")}
    parts = {
        "subprocess": {"test_subprocess"},
        "sockets": {"test_sendfile", "test_server", "test_sock_lowlevel", "test_sslproto", "test_streams"},
        "ssl": {"test_ssl"},
        "events": {"test_events"},
        "rest": {
            *(
                "test_futures",
                "test_pep492",
                "test_proactor_events",
                "test_protocols",
                "test_selector_events",
            ),
            *("test_tasks", "test_transports", "test_windows_events", "test_windows_utils"),
        },
    }
    parts["loops"] = every.difference(*parts.values())
    return {
        f"test_asyncio {name}": Suite("asyncio", [f"test.test_asyncio.{module}" for module in sorted(part)])
        for name, part in parts.items()
    }


SUITES = {
    "test_selectors": Suite("selectors", ["test.test_selectors"]),
    **asyncio_suites(),
    "test_epoll": Suite("epoll", ["test.test_epoll"]),
    "base classes": Suite("bases", [SELECTOR_EVENTS, BASE_EVENTS]),
}

LONG = {"test_asyncio rest"}
"""Here no test meets a default loop but some of test_tasks, and those no more of it than call_soon().

It has 10 of the 26 seconds for which the whole of test_asyncio keeps a core at work.
"""


@pytest.fixture(autouse=True)
def no_hang() -> None:
    """The runs have a guard of their own, which counts from one test of CPython's to the next."""


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Callable[[str], Comparison]]:
    """Compare a suite with stock, by the suite's name. While one is waited for, the others go on."""
    long = pytestconfig.getoption("--long")
    chosen = {name: suite for name, suite in SUITES.items() if long or name not in LONG}
    runs = Runs(tmp_path_factory.mktemp("conformance"), 5 * HANG if long else HANG)
    ours = {name: runs.start(suite.swap, suite.modules) for name, suite in chosen.items()}
    stock = {name: runs.start("stock", suite.modules) for name, suite in chosen.items() if long}

    @functools.cache
    def compared(name: str) -> Comparison:
        return compare(runs, ours[name], stock.get(name), CANNOT_HOLD.get(chosen[name].swap, {}))

    yield compared
    runs.close()


def summary(figures: Mapping[str, int], stock: str) -> str:
    """Each figure with stock's beside it, in one line."""
    return ", ".join(
        f"{name} {count} ({stock} {figures[f'stock {name}']})"
        for name, count in figures.items()
        if not name.startswith("stock ")
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in SUITES]
)
def test_same_as_stock(name: str, compared: Callable[[str], Comparison], show: Callable[[str], None]) -> None:
    both = compared(name)
    show(summary(both.figures(), "stock"))
    if both.recovered:
        show(f"failed at first and passed alone: {', '.join(both.recovered)}")
    if failed := both.ours["failed"].keys() & both.stock["failed"].keys():
        show(f"failed on stock too: {', '.join(sorted(failed))}")
    assert both.figures()["ran"] > 0
    assert sorted(both.ours["loaded"]) == sorted(both.stock["loaded"])
    assert both.ours["skipped"].keys() == both.stock["skipped"].keys()
    cannot_hold = CANNOT_HOLD.get(SUITES[name].swap, {}).keys() & both.ours["loaded"]
    assert cannot_hold <= both.ours["failed"].keys()
    # Without /etc/services (netbase) stock fails one of them too.
    cannot_hold -= both.stock["failed"].keys()
    assert both.failed_on_ours.keys() == cannot_hold, "\n".join(both.failed_on_ours.values())


def test_default_loop_is_ours(
    compared: Callable[[str], Comparison], pytestconfig: pytest.Config, show: Callable[[str], None]
) -> None:
    tests: collections.Counter[str] = collections.Counter()
    made: collections.Counter[str] = collections.Counter()
    for name in asyncio_suites():
        if pytestconfig.getoption("--long") or name not in LONG:
            tests.update(compared(name).figures())
            made.update(compared(name).ours["made"])
    show(f"test.test_asyncio: {summary(tests, 'stock')}; objects made: {summary(made, 'of stock')}")
    assert made["EpollSelector"] > 0
    assert made["EventLoop"] > 0
    assert made["SocketTransport"] > 0
    assert made["stock EventLoop"] == 0


def test_base_classes_are_ours(compared: Callable[[str], Comparison], show: Callable[[str], None]) -> None:
    made = compared("base classes").ours["made"]
    show(f"objects made: {summary(made, 'of stock')}")
    assert made["EventLoop"] > 0
    assert made["SocketTransport"] > 0
    assert made["stock EventLoop"] == 0
