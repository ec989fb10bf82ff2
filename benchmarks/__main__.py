"""``python -m benchmarks``: measure, print one table, and write the files asked for.

A bar that is not met is shown, and no more: this is a measurement, not a test.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import ctl, echo, flags, idle_registrations, memory, selector, wait
from .aio.loops import LOOPS
from .aio.measure import measure as measure_aio
from .aio.overview import overview
from .machine import Unfit, describe
from .report import Figure, table, write_json

PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "wait": wait.measure,
    "ctl": ctl.measure,
    "selector": selector.measure,
    "flags": flags.measure,
    "memory": memory.measure,
    "idle": idle_registrations.measure,
    "echo": echo.measure,
    "aio": measure_aio,
}
ROUNDS = 200
QUICK_ROUNDS = 20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure pyepoll.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--plot", type=Path, metavar="DIRECTORY", help="draw wait, echo and aio as SVG (needs matplotlib)"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="of the part aio, the rows with this text in their names; can be given again",
    )
    parser.add_argument(
        "--loops",
        type=lambda names: names.split(","),
        default=[],
        metavar="NAME,...",
        help=f"of the part aio, these loops: {', '.join(LOOPS)}; all that are installed if none is given",
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if unknown := set(given.loops) - set(LOOPS):
        parser.error(f"no such loop: {', '.join(sorted(unknown))}")
    return given


def main() -> None:
    given = arguments()
    machine = describe()
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    figures: list[Figure] = []
    aio = partial(measure_aio, only=given.only, loops=given.loops)
    parts: dict[str, Callable[[int], list[Figure]]] = {**PARTS, "aio": aio}
    for part, measure in parts.items():
        if part in given.parts or not given.parts:
            print(f"measuring {part} ...", file=sys.stderr)
            try:
                figures += measure(rounds)
            except Unfit as reason:
                print(f"skipped {part}: {reason}", file=sys.stderr)
    for key, value in machine.items():
        print(f"{key}: {value}")
    print(f"rounds: {rounds}\n\n{table(figures)}")
    if rows := overview(figures):
        print(f"\nCPU time of each operation, and answers per second of each server:\n\n{rows}")
    if given.json:
        write_json(given.json, machine, rounds, figures)
    if given.plot:
        # Only here: all else works without matplotlib.
        from .plot import draw

        draw(given.plot, machine, figures)


if __name__ == "__main__":
    main()
