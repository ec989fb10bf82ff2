"""``python -m benchmarks.update_docs``: put the figures of ``results`` where README and docs show them.

There is what ``python -m benchmarks --json benchmarks/results/cpython-X.Y.json`` wrote, on one machine.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {"README.md": "docs/benchmarks.svg", "docs/performance.md": "benchmarks.svg"}
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->"

WAITS = {
    "`for … in ep`, as a multiple of C": "endless iteration / C",
    "`for … in ep.wait(0)`": "wait(0) / C",
    "`for … in ep.poll(0)`": "poll(0) / C",
    "the least: `raw.epoll_wait`, a loop over a list made before": "the least / C",
    "`select.epoll`": "select.epoll / C",
    "`selectors.EpollSelector`": "selectors / C",
}
SHARES_OF_C = {
    "`Protocol` echo, 64 connections, as a share of C": ("Protocol echo", 64),
    "the same with 1000": ("Protocol echo", 1000),
    "with 16 messages in flight on each of 64": ("Protocol echo, 16 in flight", 64),
}
TIMES_STOCK = {
    "streams echo, 64 connections, times asyncio": "Streams echo",
    "TLS echo": "TLS echo",
    "uvicorn with httptools": "uvicorn",
}


class Runs:
    """What the runs measured, by name and size."""

    def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
        self.machine: dict[str, str] = runs[-1]["machine"]
        self.rounds: int = runs[-1]["rounds"]
        self.pythons = " / ".join(
            re.sub(r"CPython (\d+\.\d+).*", r"\1", run["machine"]["python"]) for run in runs
        )
        self._medians = [
            {(each["name"], each["size"]): each["value"]["median"] for each in run["figures"]} for run in runs
        ]

    def all(self, name: str, size: int | None = None, form: str = "{:.2f}") -> str:
        """Each run's median, in their order."""
        return " / ".join(form.format(medians[name, size]) for medians in self._medians)

    def every(self, start: str) -> list[float]:
        """The medians of all figures with such names, of all runs."""
        return [
            value
            for medians in self._medians
            for (name, _), value in medians.items()
            if name.startswith(start)
        ]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def block(runs: Runs, picture: str) -> str:
    both = runs.all
    sizes = (1, 10, 100, 1000)
    registration = runs.every("registration,")
    lines = [
        "Ready events, N at a time, as a multiple of a C loop around `epoll_wait` on the same fds; "
        f"CPython {runs.pythons}:",
        "",
        row("", *(f"N={size}" for size in sizes)),
        "|---" * 5 + "|",
        *(row(label, *(both(name, size) for size in sizes)) for label, name in WAITS.items()),
        "",
        f"`modify` takes {both('modify / select.epoll')} of `select.epoll`'s time, `unregister` and",
        f"`register` {both('unregister + register / select.epoll')}. An echo server in Python reaches "
        f"{both('echo server, pyepoll / C', 64)} of the same server in C at",
        f"64 connections, and {both('echo server, pyepoll / C', 1000)} at 1000. A registration takes "
        f"{min(registration):.0f} to {max(registration):.0f} bytes.",
        "",
        f"asyncio servers on one core, by their round trips a second; CPython {runs.pythons}:",
        "",
        row("", "asyncio", "uvloop", "pyepoll.aio"),
        "|---" * 4 + "|",
        *(
            row(label, *(both(f"{name}, {loop} / C", size) for loop in ("stock", "uvloop", "pyepoll")))
            for label, (name, size) in SHARES_OF_C.items()
        ),
        *(
            row(label, "1", *(both(f"{name}, {loop} / stock", 64) for loop in ("uvloop", "pyepoll")))
            for label, name in TIMES_STOCK.items()
        ),
        "",
        "The 99th percentile of the first's round trips is "
        f"{both('Protocol echo, p99, pyepoll / uvloop', 64)} of uvloop's. `asyncio.sleep(0.0001)`",
        f"takes {both('asyncio.sleep(0.0001), pyepoll', form='{:.0f}')} µs, asyncio's "
        f"{both('asyncio.sleep(0.0001), stock', form='{:,.0f}')}, and uvloop's "
        f"{both('asyncio.sleep(0.0001), uvloop', form='{:.0f}')}, which is early.",
        "",
        f"{runs.machine['machine']} that are shared, {runs.machine['kernel']}; medians of {runs.rounds}",
        f"rounds, for asyncio's servers {runs.rounds // 5}, which move by up to a fifth from run to run.",
        "",
        f"![What is measured, beside C]({picture})",
    ]
    return "\n".join(lines) + "\n"


def saved() -> Runs:
    """The results, the older interpreter's first."""
    runs = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    return Runs(
        sorted(runs, key=lambda run: [int(number) for number in re.findall(r"\d+", run["machine"]["python"])])
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.update_docs", description="Show the saved figures in the pages."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page shows others")
    check = parser.parse_args().check
    runs = saved()
    for page, picture in PICTURES.items():
        text = (ROOT / page).read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        shown = f"{before}{BEGIN}{block(runs, picture)}{END}{after}"
        if not check:
            (ROOT / page).write_text(shown)
        elif shown != text:
            sys.exit(f"{page} does not show what benchmarks/results has: python -m benchmarks.update_docs")


if __name__ == "__main__":
    main()
