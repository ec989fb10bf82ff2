"""The type of the fixture ``effort``."""

from typing import Protocol


class Effort(Protocol):
    def __call__(self, quick: int, long: int) -> int: ...
