"""LoopStats, the result of pyepoll.aio.stats()."""

from typing import NamedTuple

__all__ = ["LoopStats"]


class LoopStats(NamedTuple):
    """Counters of an event loop since it was made.

    All but ``timed`` only rise. If a subclass has a ``_run_once()`` that does not call the one of its base,
    nothing is counted.
    """

    turns: int
    """Turns of the loop that have begun."""
    callbacks: int
    """Callbacks and steps of tasks that have run; those of a turn are added at its end. In a turn that
    asyncio's own code runs (debug mode, an overridden method), cancelled ones are included."""
    events: int
    """Events that waits returned: one for each fd that was ready, the loop's own wake-up included. In a turn
    that asyncio's own code runs, only with the default selector."""
    slow_callbacks: int
    """Callbacks that took at least ``loop.slow_callback_duration`` seconds. Counted after
    :func:`enable_stats`, and not in turns that asyncio's own code runs: debug mode logs such callbacks."""
    idle: float
    """Seconds in which the loop waited for events or for the next timer; getting the GIL back after the wait
    is included. Counted after :func:`enable_stats`. In a turn that asyncio's own code runs, only with the
    default selector."""
    timed: bool
    """Whether ``slow_callbacks`` and ``idle`` are being counted."""
