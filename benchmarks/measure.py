"""Time blocks of work against each other.

The state of a machine changes more slowly than a block runs: so the contenders take turns, in many short
rounds, and their times of the same round are compared. The median over the rounds is then free of a
disturbance of a single one. The garbage collector stays on, as programs have it.
"""

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter_ns
from typing import NamedTuple

__all__ = ["BLOCK_NS", "Spread", "count_for", "in_turns", "interleave", "ratio", "spread", "starts"]

BLOCK_NS = 1_000_000
"""How long the quickest contender's block should take: far above the clock's cost, far below a tick."""

STARTS = 5
"""So often a contender's process is started: where its memory lies is worth 1 % of its speed."""


class Spread(NamedTuple):
    """The median of some values, and the quartiles that tell how noisy they were."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the quartiles of ``values``; a single value is its own."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return how ``above`` compares with ``below``, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def elapsed(block: Callable[[], object]) -> int:
    start = perf_counter_ns()
    block()
    return perf_counter_ns() - start


def count_for(work: Callable[[int], object]) -> int:
    """Return for which count ``work`` takes about ``BLOCK_NS``; this also warms it up.

    Of three tries: one that was interrupted must not make the blocks short.
    """
    count = 1
    while min(elapsed(partial(work, count)) for _ in range(3)) < BLOCK_NS:
        count *= 2
    return count


def in_turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Name every contender once in every round.

    The order is drawn again for each, so that none always inherits the same neighbour's cache.
    """
    order = list(names)
    draw = random.Random(0)
    for _ in range(rounds):
        draw.shuffle(order)
        yield from order


def starts(rounds: int) -> list[int]:
    """Divide the rounds among a few starts of the contenders."""
    count = min(STARTS, rounds)
    return [rounds * (start + 1) // count - rounds * start // count for start in range(count)]


def interleave(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[int]]:
    """Time each contender once in every round; return the nanoseconds of each, in order of rounds."""
    for block in contenders.values():
        block()
    times: dict[str, list[int]] = {name: [] for name in contenders}
    for name in in_turns(contenders, rounds):
        times[name].append(elapsed(contenders[name]))
    return times
