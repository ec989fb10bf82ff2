"""``python -m benchmarks``: measure, print one table, and write the files asked for.

A bar that is not met is shown, and no more: this is a measurement, not a test.
"""

import argparse
import sys
from pathlib import Path

from . import aio, ctl, echo, flags, idle_registrations, memory, selector, wait
from .machine import Unfit, describe
from .report import table, write_json

PARTS = {
    "wait": wait.measure,
    "ctl": ctl.measure,
    "selector": selector.measure,
    "flags": flags.measure,
    "memory": memory.measure,
    "idle": idle_registrations.measure,
    "echo": echo.measure,
    "aio": aio.measure,
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
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return given


def main() -> None:
    given = arguments()
    machine = describe()
    rounds = QUICK_ROUNDS if given.quick else ROUNDS
    figures = []
    for part in PARTS:
        if part in given.parts or not given.parts:
            print(f"measuring {part} ...", file=sys.stderr)
            try:
                figures += PARTS[part](rounds)
            except Unfit as reason:
                print(f"skipped {part}: {reason}", file=sys.stderr)
    for key, value in machine.items():
        print(f"{key}: {value}")
    print(f"rounds: {rounds}\n\n{table(figures)}")
    if given.json:
        write_json(given.json, machine, rounds, figures)
    if given.plot:
        # Only here: all else works without matplotlib.
        from .plot import draw

        draw(given.plot, machine, figures)


if __name__ == "__main__":
    main()
