"""One row for each operation and each server, one column for each loop."""

from collections.abc import Sequence

from ..report import Figure
from .loops import LOOPS, OURS

__all__ = ["overview"]


def cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"  # noqa: RUF001
    value = figure.value.median
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def overview(figures: Sequence[Figure]) -> str:
    """Return a Markdown table of the medians of the part aio, or "" if there are none."""
    rows: dict[tuple[str, int | None, str], dict[str, Figure]] = {}
    for figure in figures:
        name, _, loop = figure.name.rpartition(", ")
        if figure.part == "aio" and loop in LOOPS and figure.unit:
            rows.setdefault((name, figure.size, figure.unit), {})[loop] = figure
    loops = [loop for loop in LOOPS if any(loop in row for row in rows.values())]
    lines = [["", *loops, "to reach"], ["---", *("--:" for _ in [*loops, ""])]]
    for (name, size, unit), row in rows.items():
        title = f"{name}{'' if size is None else f', {size:,}'}, {unit}"
        floor = row[OURS].bar if OURS in row else None
        lines.append([title, *(cell(row.get(loop)) for loop in loops), str(floor or "")])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""
