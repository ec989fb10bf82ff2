"""What is left of it in a server: an echo server with ``for conn, events in ep``, against C.

All servers are up at once, each with its own load and all its connections, and sleep in their waits
but for the one whose turn it is. That one has a core to itself, its load has the other. Whether it did
is measured too: a server that had not its core nearly all of the time waited for its load, or for
another program, and its rate says little about it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

from .compiler import compiled
from .machine import allow_fds, server_and_load_cores
from .measure import Spread, in_turns, ratio, spread
from .report import Bar, Figure

__all__ = ["measure"]

SIZES = (64, 1000)
BARS = (Bar(">=", 0.91), Bar(">=", 0.93))
SATURATED = Bar(">=", 0.9)
BURST_MS = 200

Process = subprocess.Popen[str]


class Turn(NamedTuple):
    """What one burst of load showed."""

    rate: float
    """Round trips per second."""
    cpu: float
    """Nanoseconds of the server's core for each."""
    busy: float
    """The share of the time that the server had its core."""


@contextmanager
def running(command: list[str | Path], core: int) -> Iterator[Process]:
    """Start a program on ``core``, and kill it in the end."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.kill()


def say(process: Process, line: str) -> None:
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)


def hear(process: Process) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with status {process.wait()}")
    return line


def cpu_ns(process: Process) -> int:
    """Return for how long a process has had a core."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])


def turn(server: Process, load: Process, milliseconds: int) -> Turn:
    start, cpu_start = perf_counter_ns(), cpu_ns(server)
    say(load, str(milliseconds))
    trips, nanoseconds = map(int, hear(load).split())
    cpu, elapsed = cpu_ns(server) - cpu_start, perf_counter_ns() - start
    return Turn(trips * 1e9 / nanoseconds, cpu / trips, cpu / elapsed)


def turns(size: int, rounds: int, milliseconds: int) -> dict[str, list[Turn]]:
    """Load each server in turn, ``rounds`` times over."""
    seconds = 60 + rounds * milliseconds // 100
    python = [sys.executable, "-m", "benchmarks.servers"]
    commands: dict[str, list[str | Path]] = {
        "C": [compiled("echo.c"), str(seconds)],
        "pyepoll": [*python, "pyepoll", str(seconds)],
        "select.epoll": [*python, "select.epoll", str(seconds)],
    }
    server_core, load_core = server_and_load_cores()
    with ExitStack() as stack:
        pairs = {}
        for name, command in commands.items():
            server = stack.enter_context(running(command, server_core))
            port = hear(server).strip()
            load = stack.enter_context(
                running([compiled("load.c"), port, str(size), str(seconds)], load_core)
            )
            hear(load)
            pairs[name] = server, load
        for server, load in pairs.values():
            turn(server, load, milliseconds)
        results: dict[str, list[Turn]] = {name: [] for name in pairs}
        for name in in_turns(pairs, rounds):
            results[name].append(turn(*pairs[name], milliseconds))
    return results


def figures_of(size: int, bar: Bar, results: dict[str, list[Turn]]) -> list[Figure]:
    rates = {name: [turn.rate for turn in of_one] for name, of_one in results.items()}
    cpus = {name: [turn.cpu for turn in of_one] for name, of_one in results.items()}

    def figure(name: str, value: Spread, bar: Bar | None = None, unit: str = "") -> Figure:
        return Figure("echo", f"echo server, {name}", value, bar, size, unit)

    return [
        figure("pyepoll / C", ratio(rates["pyepoll"], rates["C"]), bar),
        figure("pyepoll / select.epoll", ratio(rates["pyepoll"], rates["select.epoll"]), Bar(">", 1)),
        figure("CPU time, C / pyepoll", ratio(cpus["C"], cpus["pyepoll"])),
        figure("CPU time, select.epoll / pyepoll", ratio(cpus["select.epoll"], cpus["pyepoll"])),
        *(figure(name, spread(rates[name]), unit="/s") for name in rates),
        *(
            figure(f"{name}: had its core", spread([turn.busy for turn in of_one]), SATURATED)
            for name, of_one in results.items()
        ),
    ]


def measure(rounds: int) -> list[Figure]:
    figures = []
    allow_fds(max(SIZES))
    for size, bar in zip(SIZES, BARS, strict=True):
        figures += figures_of(size, bar, turns(size, max(5, rounds // 5), BURST_MS))
    return figures
