"""Figures and their bars: one table to read, one JSON file to keep."""

import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .measure import Spread

__all__ = ["Bar", "Figure", "table", "write_json"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, ">": operator.gt}


@dataclass(frozen=True)
class Bar:
    """The bar of a figure."""

    relation: Literal["<=", ">=", ">"]
    limit: float

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"


@dataclass(frozen=True)
class Figure:
    """One measured figure. One without a bar is there to judge the others by."""

    part: str
    name: str
    value: Spread
    bar: Bar | None = None
    size: int | None = None
    """How many fds, connections or registrations it was measured with."""
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        return None if self.bar is None else _COMPARE[self.bar.relation](self.value.median, self.bar.limit)


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _cells(figure: Figure) -> list[str]:
    value = figure.value
    return [
        figure.name,
        "" if figure.size is None else f"{figure.size:,}",
        f"{_number(value.median)} {figure.unit}".strip(),
        f"{_number(value.low)} .. {_number(value.high)}",
        "" if figure.bar is None else str(figure.bar),
        {True: "yes", False: "NO", None: ""}[figure.met],
    ]


def table(figures: Sequence[Figure]) -> str:
    """Return a Markdown table, a row for each figure."""
    rows = [["figure", "N", "median", "quartiles", "bar", "met"], *map(_cells, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def write_json(path: Path, machine: dict[str, str], rounds: int, figures: Sequence[Figure]) -> None:
    """Write the figures and the machine that they were measured on."""
    rows = [{**asdict(figure), "value": figure.value._asdict(), "met": figure.met} for figure in figures]
    path.write_text(json.dumps({"machine": machine, "rounds": rounds, "figures": rows}, indent=2) + "\n")
