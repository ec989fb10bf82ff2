"""How long a short sleep takes."""

import asyncio
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from time import perf_counter_ns

from ..machine import pinned
from ..measure import in_turns, spread
from ..report import Bar, Figure
from .loops import OURS

__all__ = ["NAME", "figures"]

SLEEP_US = 100
NAME = f"asyncio.sleep({SLEEP_US / 1e6:.4f})"
SLEEPS = 4
"""How many sleeps a turn has."""


async def sleeps(count: int) -> list[float]:
    """Return how many microseconds each of some short sleeps took."""
    times = []
    for _ in range(count):
        start = perf_counter_ns()
        await asyncio.sleep(SLEEP_US / 1e6)
        times.append((perf_counter_ns() - start) / 1000)
    return times


def figures(factories: Mapping[str, str], rounds: int) -> Iterator[Figure]:
    times: dict[str, list[float]] = {name: [] for name in factories}
    with pinned(), ExitStack() as stack:
        runners = {
            name: stack.enter_context(asyncio.Runner(loop_factory=pkgutil.resolve_name(factory)))
            for name, factory in factories.items()
        }
        for name in in_turns(factories, rounds):
            times[name] += runners[name].run(sleeps(SLEEPS))
    for name, of_one in times.items():
        ours = name == OURS
        title = f"{NAME}, {name}"
        yield Figure("aio", title, spread(of_one), Bar("<=", 2.5 * SLEEP_US) if ours else None, unit="µs")
        shortest = spread([min(of_one)])
        yield Figure(
            "aio", f"{title}: the shortest", shortest, Bar(">=", SLEEP_US) if ours else None, unit="µs"
        )
