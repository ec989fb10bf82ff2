"""How much a test does: the type of the fixture ``effort``, and settings for Hypothesis that follow it."""

from typing import Protocol

from hypothesis import HealthCheck, Phase, settings


class Effort(Protocol):
    def __call__(self, quick: int, long: int) -> int: ...


def walks(effort: Effort, quick: int, long: int) -> settings:
    """Return the settings of random walks: the same ones each time, but others with ``--long``."""
    return settings(
        max_examples=effort(quick, long),
        deadline=None,
        database=None,
        derandomize=effort(1, 0) == 1,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
