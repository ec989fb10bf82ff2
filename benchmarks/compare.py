"""``python -m benchmarks.compare BEFORE AFTER part ...``: is one build of pyepoll slower than another?

BEFORE and AFTER are the Pythons of two virtual environments with different builds of pyepoll (not
installed with ``-e``, which would measure the checkout twice). In every round each of them runs the
parts once, in a process of its own, and the figures of the same round are compared. "slower" is how many
times as slow, or as big, the second build is. A row without a bar is not about pyepoll, or not only: its
ratio shows how noisy the machine was.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .__main__ import PARTS
from .machine import describe
from .measure import Spread, in_turns, ratio, spread

__all__: list[str] = []

Row = dict[str, Any]
ROUNDS = 15
MOST = 1.03


@contextmanager
def benchmarks_alone() -> Iterator[Path]:
    """Make a directory that has this package, but not the checkout's pyepoll."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "benchmarks").symlink_to(Path(__file__).resolve().parent)
        yield Path(name)


def run(python: str, parts: Sequence[str], directory: Path) -> list[Row]:
    output = directory / "figures.json"
    command = [python, "-m", "benchmarks", "--quick", "--json", str(output), *parts]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows: list[Row] = json.loads(output.read_text())["figures"]
    return rows


def slower(row: Row, change: Spread) -> Spread:
    """Turn ``after / before`` over where a higher figure is the better one."""
    higher_is_better = row["bar"] is not None and row["bar"]["relation"] != "<="
    return Spread(1 / change.median, 1 / change.high, 1 / change.low) if higher_is_better else change


def line(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Return the line of the table that shows one figure's rounds."""
    row = before[0]
    values = [[each["value"]["median"] for each in rows] for rows in (before, after)]
    change = slower(row, ratio(values[1], values[0]))
    old, new = (f"{spread(of_one).median:10,.3f}" for of_one in values)
    size = "" if row["size"] is None else f"{row['size']:,}"
    verdict = "" if row["bar"] is None else "NO" if change.median > MOST else "yes"
    return (
        f"{row['part']:8} {row['name']:44} {size:>6} {old} {new} "
        f"{change.median:7.3f}  {change.low:.3f} .. {change.high:.3f}  {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="Compare two builds.")
    parser.add_argument("before", help="the Python that has the older build")
    parser.add_argument("after", help="the Python that has the newer build")
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="part")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} if not given")
    given = parser.parse_args()
    pythons = {"before": given.before, "after": given.after}
    results: dict[str, list[list[Row]]] = {name: [] for name in pythons}
    with benchmarks_alone() as directory:
        for name in in_turns(pythons, given.rounds):
            results[name].append(run(pythons[name], given.parts, directory))
    print(f"{describe()['machine']}, load {describe()['load']}; {given.rounds} rounds; bar: slower <= {MOST}")
    print(f"{'part':8} {'figure':44} {'N':>6} {'before':>10} {'after':>10} {'slower':>7}  quartiles  met")
    for before, after in zip(
        zip(*results["before"], strict=True), zip(*results["after"], strict=True), strict=True
    ):
        print(line(before, after))


if __name__ == "__main__":
    main()
