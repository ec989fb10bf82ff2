"""The speed-up of a whole server: an echo server with ``for conn, events in ep``, against C."""

import sys

from .compiler import compiled
from .machine import allow_fds
from .measure import Spread, ratio, spread
from .report import Bar, Figure
from .server_rounds import SATURATED, Command, Turn, message_load, seconds_for, turns

__all__ = ["measure"]

SIZES = (64, 1000)
BARS = (Bar(">=", 0.91), Bar(">=", 0.93))
BURST_MS = 200


def results_of(size: int, rounds: int) -> dict[str, list[Turn]]:
    seconds = seconds_for(3, rounds, BURST_MS)
    python = [sys.executable, "-m", "benchmarks.servers"]
    servers: dict[str, Command] = {
        "C": [compiled("echo.c"), str(seconds)],
        "pyepoll": [*python, "pyepoll", str(seconds)],
        "select.epoll": [*python, "select.epoll", str(seconds)],
    }
    results, failed = turns(servers, message_load(size, seconds), rounds, BURST_MS)
    if failed:
        raise RuntimeError(f"servers that failed: {failed}")
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
        figures += figures_of(size, bar, results_of(size, max(5, rounds // 5)))
    return figures
