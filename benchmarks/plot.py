"""Draw the plot that the README shows."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from .report import Figure

__all__ = ["draw"]

WAITS = {
    "endless iteration / C": ("pyepoll: for … in ep", "#1b6ca8"),
    "wait(0) / C": ("pyepoll: for … in ep.wait(0)", "#4a9bd4"),
    "poll(0) / C": ("pyepoll: for … in ep.poll(0)", "#9cc9ea"),
    "select.epoll / C": ("select.epoll", "#b8b8b8"),
    "selectors / C": ("selectors", "#7d7d7d"),
}
SERVERS = {
    "echo server, C": ("C", "#3c3c3c"),
    "echo server, pyepoll": ("pyepoll", "#1b6ca8"),
    "echo server, select.epoll": ("select.epoll", "#b8b8b8"),
}
AIO_SERVERS = {
    "Protocol echo, pyepoll / C": ("pyepoll.aio", "#1b6ca8"),
    "Protocol echo, uvloop / C": ("uvloop", "#7d7d7d"),
    "Protocol echo, stock / C": ("asyncio", "#b8b8b8"),
}
WIDTHS = {"wait": 7.4, "echo": 3.8, "aio": 3.8}


def bars(axes: Axes, figures: Sequence[Figure], styles: dict[str, tuple[str, str]], label: str) -> None:
    """Draw a group of bars for each size, a bar in it for each name in ``styles`` that was measured."""
    measured = {figure.name for figure in figures}
    styles = {name: style for name, style in styles.items() if name in measured}
    sizes = sorted({figure.size for figure in figures if figure.name in styles and figure.size is not None})
    width = 0.84 / len(styles)
    for place, (name, (legend, colour)) in enumerate(styles.items()):
        values = {figure.size: figure.value.median for figure in figures if figure.name == name}
        drawn = axes.bar(
            [group + (place - (len(styles) - 1) / 2) * width for group in range(len(sizes))],
            [values[size] for size in sizes],
            width,
            label=legend,
            color=colour,
        )
        numbers = axes.bar_label(drawn, fmt=label, fontsize=7, padding=1)
        for number in numbers:  # readable on the line of C
            number.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.spines[["top", "right"]].set_visible(False)


def draw(path: Path, machine: dict[str, str], figures: Sequence[Figure]) -> None:
    """Draw the waits, the echo servers and those of asyncio, whichever of them were measured."""
    # The same figures make the same file: no date, no random ids.
    matplotlib.rcParams["svg.hashsalt"] = "pyepoll"
    parts = [part for part in WIDTHS if any(figure.part == part for figure in figures)]
    if not parts:
        raise SystemExit("benchmarks: there is nothing to draw without the parts wait, echo and aio")
    widths = [WIDTHS[part] for part in parts]
    canvas = Canvas(figsize=(sum(widths), 3.9), layout="constrained")
    panels = canvas.subplots(1, len(parts), squeeze=False, width_ratios=widths)[0]
    axes_of = dict(zip(parts, panels, strict=True))
    if "wait" in axes_of:
        axes = axes_of["wait"]
        bars(axes, figures, WAITS, "{:.2f}")
        axes.axhline(1, color="#3c3c3c", linewidth=1, linestyle="--")
        axes.set_title("A wait and its events", fontsize=10)
        axes.set_xlabel("ready fds")
        axes.set_ylabel("time, C = 1 (less is better)")
        axes.legend(fontsize=7, frameon=False, ncols=2)
        axes.margins(y=0.3)
    if "echo" in axes_of:
        axes = axes_of["echo"]
        bars(axes, figures, SERVERS, "{:,.0f}")
        axes.set_title("An echo server on one core", fontsize=10)
        axes.set_xlabel("connections")
        axes.set_ylabel("round trips a second (more is better)")
        axes.legend(fontsize=7, frameon=False, ncols=3)
        axes.margins(y=0.2)
        axes.yaxis.set_major_formatter("{x:,.0f}")
    if "aio" in axes_of:
        axes = axes_of["aio"]
        bars(axes, figures, AIO_SERVERS, "{:.2f}")
        axes.axhline(1, color="#3c3c3c", linewidth=1, linestyle="--")
        axes.set_title("An asyncio.Protocol on one core", fontsize=10)
        axes.set_xlabel("connections")
        axes.set_ylabel("round trips, C = 1 (more is better)")
        axes.legend(fontsize=7, frameon=False, ncols=3)
        axes.margins(y=0.2)
    canvas.suptitle(f"{machine['python']}; {machine['kernel']}; {machine['machine']}", fontsize=8)
    canvas.savefig(path, format="svg", metadata={"Date": None})
