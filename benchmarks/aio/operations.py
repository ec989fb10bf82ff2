"""The CPU time of single operations of each loop.

Each loop does each kind of work in a process of its own, and all of them take turns on one core. The time is
that of the process with all its threads, so one that works in a second thread gains nothing.
"""

import math
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

from ..machine import server_and_load_cores
from ..measure import in_turns, ratio, spread, starts
from ..report import Bar, Figure
from ..server_rounds import Failed, Process, hear, running, say
from .loops import OURS, leave_out

__all__ = ["OPERATIONS", "Operation", "figures_of", "times_of"]

FLOOR_PYTHON = (3, 13)
"""The interpreter that the floors were measured with: newer ones have to reach them too."""


class Operation(NamedTuple):
    name: str
    """As in scheduling.py or files.py."""
    times: int
    """How often in a turn: for some milliseconds."""
    floor: float = math.inf
    """The CPU time that pyepoll has to reach on a quiet machine, in the unit."""
    unit: str = "ns"
    rivals: tuple[str, ...] = ("stock", "uvloop", "rloop", "blazio", "zloop")
    """The loops than which pyepoll must not be slower."""


OPERATIONS = (
    Operation("call_soon", 10_000, 125),
    Operation("call_soon with 2 arguments", 10_000, 125),
    Operation("call_soon_threadsafe", 5_000, 115),
    Operation("from another thread and back", 300, 14_500),
    Operation("timer scheduled and cancelled", 5_000, 165),
    Operation("timer fired", 5_000, 190),
    Operation("sleep(0)", 3_000, 470),
    Operation("1,000 tasks, each sleep(0)", 2_000, 2_700),
    Operation("two tasks, two queues", 1_000, 3_350),
    Operation("asyncio.timeout", 1_000, 2_050),
    Operation("add_reader + remove_reader", 2_000, 300),
    Operation("getaddrinfo, numeric", 500, 400),
    Operation("connect and close, streams", 40, 118, "µs"),
    Operation("bulk, a KiB", 32_768, 165),
    Operation("UDP round trip", 300, 12.5, "µs"),
    Operation("sock_recv/sock_sendall", 300, 12, "µs"),
    Operation("pipe round trip", 300, unit="µs"),
    Operation("subprocess", 10, unit="µs", rivals=("stock",)),
)


def turn(worker: Process, operation: Operation) -> float:
    say(worker, str(operation.times))
    nanoseconds = int(hear(worker)) / operation.times
    return nanoseconds / 1000 if operation.unit == "µs" else nanoseconds


def times_of(operation: Operation, factories: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Return the CPU time of one operation in each round, for each loop that can do it."""
    core, _ = server_and_load_cores()
    times: dict[str, list[float]] = {name: [] for name in factories}
    for rounds_of_start in starts(rounds):
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(
                    running(
                        [sys.executable, "-m", "benchmarks.aio.worker", factories[name], operation.name], core
                    )
                )
                for name in times
            }
            for name, worker in list(workers.items()):
                try:
                    for _ in range(2):
                        turn(worker, operation)
                except Failed as reason:
                    leave_out(f"{operation.name} on {name}", str(reason))
                    del workers[name], times[name]
            for name in in_turns(workers, rounds_of_start):
                times[name].append(turn(workers[name], operation))
    return times


def figures_of(operation: Operation, times: Mapping[str, list[float]]) -> list[Figure]:
    figures = []
    if OURS in times:
        for name in times:
            if name == OURS:
                continue
            bar = Bar(">=", 1) if name in operation.rivals else None
            value = ratio(times[name], times[OURS])
            figures.append(Figure("aio", f"{operation.name}, CPU time, {name} / {OURS}", value, bar))
    for name, of_one in times.items():
        judged = name == OURS and operation.floor < math.inf and sys.version_info >= FLOOR_PYTHON
        floor = Bar("<=", operation.floor) if judged else None
        figures.append(Figure("aio", f"{operation.name}, {name}", spread(of_one), floor, unit=operation.unit))
    return figures
