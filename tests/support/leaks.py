"""Counts of memory, references and fds, and which of them a call makes grow."""

import gc
import itertools
import sys
from collections.abc import Callable

from support.fds import open_fds

Count = Callable[[], int]

FEW = 20
"""The allowed growth of the interpreter's own caches; a leak of one per call is far above it."""

COUNTS: dict[str, Count] = {"fds": lambda: len(open_fds())}
if sys.getallocatedblocks() > 0:  # Not so with PYTHONMALLOC=malloc.
    COUNTS["blocks of memory"] = sys.getallocatedblocks
if hasattr(sys, "gettotalrefcount"):
    COUNTS["references"] = sys.gettotalrefcount


def growth(call: Callable[[], object], times: int) -> dict[str, int]:
    """The increase of each count by so many calls."""
    gc.collect()
    before = {name: count() for name, count in COUNTS.items()}
    for _ in itertools.repeat(None, times):
        call()
    gc.collect()
    return {name: count() - before[name] for name, count in COUNTS.items()}


def leaks(call: Callable[[], object], times: int) -> dict[str, int]:
    """Which counts keep growing. A few times may be by chance: caches fill, other threads end."""
    for _ in itertools.repeat(None, 10):
        call()
    grown: dict[str, int] = {}
    for _ in range(10):
        grown = {name: by for name, by in growth(call, times).items() if by > FEW}
        if not grown:
            break
    return grown
