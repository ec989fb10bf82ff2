"""``python -m benchmarks.update_docs``: write ``results`` into README.md and docs/performance.md.

The results are the output of ``python -m benchmarks --json benchmarks/results/cpython-X.Y.json``, all from
one machine. ``--charts`` also draws the charts from those of the newest interpreter; it needs matplotlib.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .aio.overview import overview
from .measure import Spread
from .report import Bar, Figure

ROOT = Path(__file__).resolve().parent.parent
CHARTS = ROOT / "docs" / "charts"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->"

WAITS = {
    "`for … in ep`": "endless iteration / C",
    "`for … in ep.wait(0)`": "wait(0) / C",
    "`for … in ep.poll(0)`": "poll(0) / C",
    "`raw.epoll_wait` and a list": "the least / C",
    "`select.epoll`": "select.epoll / C",
    "`selectors`": "selectors / C",
}
SIZES = (1, 10, 100, 1000)
SHARES_OF_C = {
    "`Protocol` echo, 64 connections": ("Protocol echo", 64),
    "`Protocol` echo, 1000 connections": ("Protocol echo", 1000),
    "`Protocol` echo, 64 connections, 16 messages in flight on each": ("Protocol echo, 16 in flight", 64),
}
TIMES_STOCK = {
    "streams echo": "Streams echo",
    "TLS echo": "TLS echo",
    "uvicorn with httptools": "uvicorn",
}


Medians = dict[tuple[str, int | None], float]


class Runs:
    """The measurements, by name and size, for each interpreter."""

    def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
        self.machine: dict[str, str] = runs[-1]["machine"]
        self.rounds: list[int] = [run["rounds"] for run in runs]
        self.pythons = [re.sub(r"CPython (\d+\.\d+).*", r"\1", run["machine"]["python"]) for run in runs]
        self.figures: list[list[dict[str, Any]]] = [run["figures"] for run in runs]
        self.medians: list[Medians] = [
            {(each["name"], each["size"]): each["value"]["median"] for each in run["figures"]} for run in runs
        ]

    def all(self, name: str, size: int | None = None, form: str = "{:.2f}") -> str:
        """Each interpreter's median, the older interpreter's first."""
        return " / ".join(form.format(medians[name, size]) for medians in self.medians)

    def range(self, name: str) -> str:
        """The lowest and the highest median of the name, over all sizes and interpreters."""
        values = self.every(name)
        return f"{min(values):.2f} to {max(values):.2f}"

    def every(self, start: str) -> list[float]:
        """The medians of all figures with such names, of all interpreters."""
        return [
            value
            for medians in self.medians
            for (name, _), value in medians.items()
            if name.startswith(start)
        ]


def slashed(numbers: Sequence[int]) -> str:
    """Each interpreter's number; one if they are the same."""
    return " / ".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def text(words: str, bullet: str = "") -> list[str]:
    """A paragraph, or an item of a list."""
    indent = " " * len(bullet)
    return textwrap.wrap(
        words,
        110,
        initial_indent=bullet,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def readme_block(runs: Runs) -> str:
    both = runs.all
    lines = [
        *text(
            f"**Fast.** A wait with its events takes {runs.range('endless iteration / C')} times as long as "
            "a loop in C around `epoll_wait`. `select.epoll` takes "
            f"{runs.range('select.epoll / C')} times as long, and `selectors` "
            f"{runs.range('selectors / C')}.",
            "- ",
        ),
        *text(
            "**asyncio at nearly the speed of C.** An `asyncio.Protocol` echo server reaches "
            f"{both('Protocol echo, pyepoll / C', 64)} of the round trips of the same server in C. "
            f"uvloop reaches {both('Protocol echo, uvloop / C', 64)}, and asyncio's own loop "
            f"{both('Protocol echo, stock / C', 64)} (CPython {' / '.join(runs.pythons)}, 64 connections).",
            "- ",
        ),
        *text(
            "**Precise timers.** `asyncio.sleep(0.0001)` takes "
            f"{both('asyncio.sleep(0.0001), pyepoll', form='{:.0f}')} µs, and "
            f"{both('asyncio.sleep(0.0001), stock', form='{:,.0f}')} µs in asyncio's own loop. "
            "No wait ends early.",
            "- ",
        ),
        "",
        "![Time of one wait and its events, as a multiple of C](docs/charts/ready-events.svg)",
    ]
    return "\n".join(lines) + "\n"


def tables(runs: Runs, head: Sequence[str], rows: Callable[[Medians], Sequence[Sequence[str]]]) -> list[str]:
    """A table for each interpreter."""
    lines = []
    for python, medians in zip(runs.pythons, runs.medians, strict=True):
        lines += [f"CPython {python}:", "", row(*head), "|---" + "|--:" * (len(head) - 1) + "|"]
        lines += [*(row(*cells) for cells in rows(medians)), ""]
    return lines


def ready_events(runs: Runs) -> list[str]:
    return [
        "### Ready events",
        "",
        *text(
            "N fds are ready. The table shows the time of one wait and a loop over its events, as a multiple "
            "of a C loop around `epoll_wait` on the same fds (less is better)."
        ),
        "",
        "![Time of one wait and its events, as a multiple of C](charts/ready-events.svg)",
        "",
        *tables(
            runs,
            ["N", *map(str, SIZES)],
            lambda medians: [
                [label, *(f"{medians[name, size]:.2f}" for size in SIZES)] for label, name in WAITS.items()
            ],
        ),
    ]


def registrations(runs: Runs) -> list[str]:
    memory = runs.every("registration,")
    return [
        "### Registrations",
        "",
        f"- `modify` takes {runs.all('modify / select.epoll')} of `select.epoll`'s time.",
        f"- `unregister` and `register` take {runs.all('unregister + register / select.epoll')}.",
        f"- A registration takes {min(memory):.0f} to {max(memory):.0f} bytes of memory.",
        "",
    ]


def echo_server(runs: Runs) -> list[str]:
    return [
        "### Echo server",
        "",
        *text(
            "An echo server in Python on one core, compared with the same server in C: round trips per "
            "second (more is better)."
        ),
        "",
        f"- 64 connections: {runs.all('echo server, pyepoll / C', 64)} of C",
        f"- 1000 connections: {runs.all('echo server, pyepoll / C', 1000)} of C",
        "",
        "![Echo server on one core: round trips per second](charts/echo-server.svg)",
        "",
    ]


def asyncio_servers(runs: Runs) -> list[str]:
    both = runs.all
    loops = ("stock", "uvloop", "pyepoll")
    names = ("asyncio", "uvloop", "pyepoll")
    return [
        "### asyncio servers",
        "",
        *text("Round trips per second of a server on one core, with C = 1 (more is better)."),
        "",
        "![asyncio.Protocol echo server on one core: round trips, C = 1](charts/asyncio.svg)",
        "",
        *tables(
            runs,
            ["C = 1", *names],
            lambda medians: [
                [label, *(f"{medians[f'{name}, {loop} / C', size]:.2f}" for loop in loops)]
                for label, (name, size) in SHARES_OF_C.items()
            ],
        ),
        "Other servers, with 64 connections and asyncio's own loop = 1 (more is better):",
        "",
        *tables(
            runs,
            ["asyncio = 1", *names],
            lambda medians: [
                [label, "1", *(f"{medians[f'{name}, {loop} / stock', 64]:.2f}" for loop in loops[1:])]
                for label, name in TIMES_STOCK.items()
            ],
        ),
        *text(
            "The 99th percentile of the round-trip times of the `Protocol` echo server with 64 connections "
            f"is {both('Protocol echo, p99, pyepoll / uvloop', 64)} of uvloop's.",
            "- ",
        ),
        *text(
            f"`asyncio.sleep(0.0001)` takes {both('asyncio.sleep(0.0001), pyepoll', form='{:.0f}')} µs in "
            f"pyepoll and {both('asyncio.sleep(0.0001), stock', form='{:,.0f}')} µs in asyncio. In uvloop it "
            f"takes {both('asyncio.sleep(0.0001), uvloop', form='{:.0f}')} µs, which is too early.",
            "- ",
        ),
    ]


def figure_of(row: dict[str, Any]) -> Figure:
    bar = Bar(**row["bar"]) if row["bar"] else None
    return Figure(row["part"], row["name"], Spread(**row["value"]), bar, row["size"], row["unit"])


def event_loops(runs: Runs) -> list[str]:
    """A table of all loops for each interpreter, if the results have their operations."""
    if not runs.every("call_soon, "):
        return []
    lines = [
        "",
        "### Event loops",
        "",
        *text(
            "CPU time of each operation (less is better), answers per second of each server (more is "
            "better), and memory of connections. Each loop runs in processes of its own. A dash: the loop "
            "cannot do it, or has no wheel for this interpreter."
        ),
        "",
    ]
    for python, rows in zip(runs.pythons, runs.figures, strict=True):
        lines += [f"CPython {python}:", "", overview([figure_of(row) for row in rows]), ""]
    return lines[:-1]


def performance_block(runs: Runs) -> str:
    lines = [
        *text(
            f"Machine: {runs.machine['machine']} that are shared, {runs.machine['kernel']}. Each figure is "
            f"the median of {slashed(runs.rounds)} rounds; for the asyncio servers, of "
            f"{slashed([max(5, rounds // 5) for rounds in runs.rounds])}. The "
            "asyncio figures vary by up to a fifth from run to run. Two figures with a slash are for CPython "
            f"{' / '.join(runs.pythons)}."
        ),
        "",
        *ready_events(runs),
        *registrations(runs),
        *echo_server(runs),
        *asyncio_servers(runs),
        *event_loops(runs),
    ]
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[Runs], str]] = {
    "README.md": readme_block,
    "docs/performance.md": performance_block,
}
"""The text between the two markers of each page."""


def saved() -> Runs:
    """The results, the older interpreter's first."""
    runs = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    return Runs(
        sorted(runs, key=lambda run: [int(number) for number in re.findall(r"\d+", run["machine"]["python"])])
    )


def draw_charts(runs: Runs) -> None:
    # Only here: all else works without matplotlib.
    from .plot import draw

    draw(CHARTS, runs.machine, [figure_of(row) for row in runs.figures[-1]])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.update_docs", description="Show the saved figures in the pages."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a page shows other figures"
    )
    parser.add_argument("--charts", action="store_true", help="draw docs/charts too (needs matplotlib)")
    given = parser.parse_args()
    runs = saved()
    for page, block in BLOCKS.items():
        text = (ROOT / page).read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        shown = f"{before}{BEGIN}{block(runs)}{END}{after}"
        if not given.check:
            (ROOT / page).write_text(shown)
        elif shown != text:
            sys.exit(f"{page} does not show benchmarks/results: run python -m benchmarks.update_docs")
    if given.charts and not given.check:
        draw_charts(runs)


if __name__ == "__main__":
    main()
