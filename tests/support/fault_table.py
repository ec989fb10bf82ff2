"""A plugin of pytest that prints the outcome of each test of support.faults on each loop as a table."""

import re
from collections import defaultdict
from collections.abc import Callable

import pytest

from support.faults import LOOPS, VERSION, Side

_outcomes: dict[str, dict[str, str]] = defaultdict(dict)


@pytest.fixture(autouse=True)
def note_the_side(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Tell the process that prints the table, which may be another one, to which column a test belongs."""
    callspec = getattr(request.node, "callspec", None)
    side = callspec and callspec.params.get("side")
    if isinstance(side, Side):
        name = re.sub(rf"-?\b{side.name}\b(?=[^\[]*\]$)", "", request.node.name).replace("[]", "")
        record_property("side", f"{side.name} {name}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for key, value in report.user_properties:
        if key == "side" and report.when == "call":
            side, _, name = str(value).partition(" ")
            expected = hasattr(report, "wasxfail")
            word = {"passed": "right", "failed": "WRONG", "skipped": "fault" if expected else "-"}
            _outcomes[name][side] = word[report.outcome]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _outcomes:
        return
    terminalreporter.section(f"faults, CPython {'.'.join(map(str, VERSION))}")
    width = max(map(len, _outcomes))
    terminalreporter.line(f"{'':{width}} " + " ".join(f"{side:7}" for side in LOOPS))
    for name, sides in _outcomes.items():
        terminalreporter.line(f"{name:{width}} " + " ".join(f"{sides.get(side, '-'):7}" for side in LOOPS))
