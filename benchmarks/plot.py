"""Draw the charts that the pages show: one SVG file for each question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from .report import Figure

__all__ = ["draw"]

BLUE, LIGHT_BLUE, PALE_BLUE = "#2477b3", "#5aa7dc", "#9cc9ea"
GREY, LIGHT_GREY = "#7d7d7d", "#b3b3b3"
INK = "#767676"
"""Text and lines: readable on a white page and on a dark one, since the charts have no background."""


@dataclass(frozen=True)
class Chart:
    part: str
    title: str
    xlabel: str
    bars: dict[str, tuple[str, str]]
    """The legend and the colour of each figure."""
    label: str = "{:.2f}"
    line: bool = False
    """Whether C, which is 1, gets a line."""


CHARTS = {
    "ready-events": Chart(
        part="wait",
        title="Time of one wait and its events\nas a multiple of C (less is better)",
        xlabel="ready fds",
        bars={
            "endless iteration / C": ("for … in ep", BLUE),
            "wait(0) / C": ("ep.wait(0)", LIGHT_BLUE),
            "poll(0) / C": ("ep.poll(0)", PALE_BLUE),
            "select.epoll / C": ("select.epoll", LIGHT_GREY),
            "selectors / C": ("selectors", GREY),
        },
        line=True,
    ),
    "echo-server": Chart(
        part="echo",
        title="Echo server on one core\nround trips per second (more is better)",
        xlabel="connections",
        bars={
            "echo server, C": ("C", GREY),
            "echo server, pyepoll": ("pyepoll", BLUE),
            "echo server, select.epoll": ("select.epoll", LIGHT_GREY),
        },
        label="{:,.0f}",
    ),
    "asyncio": Chart(
        part="aio",
        title="asyncio.Protocol echo server on one core\nround trips, C = 1 (more is better)",
        xlabel="connections",
        bars={
            "Protocol echo, pyepoll / C": ("pyepoll.aio", BLUE),
            "Protocol echo, uvloop / C": ("uvloop", GREY),
            "Protocol echo, stock / C": ("asyncio", LIGHT_GREY),
        },
    ),
}

STYLE: dict[Any, Any] = {
    # The same figures make the same file: no random ids.
    "svg.hashsalt": "pyepoll",
    # Text stays text: it can be searched, and takes a font of the reader's machine.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_bars(axes: Axes, chart: Chart, figures: Sequence[Figure]) -> None:
    """Draw a group of bars for each size, with a bar for each name of the chart that was measured."""
    measured = {figure.name for figure in figures}
    styles = {name: style for name, style in chart.bars.items() if name in measured}
    sizes = sorted({figure.size for figure in figures if figure.name in styles and figure.size is not None})
    width = 0.86 / len(styles)
    for place, (name, (legend, colour)) in enumerate(styles.items()):
        values = {figure.size: figure.value.median for figure in figures if figure.name == name}
        drawn = axes.bar(
            [group + (place - (len(styles) - 1) / 2) * width for group in range(len(sizes))],
            [values[size] for size in sizes],
            width * 0.92,
            label=legend,
            color=colour,
        )
        axes.bar_label(drawn, fmt=chart.label, fontsize=9, padding=2, color=INK)
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])


def draw(directory: Path, machine: dict[str, str], figures: Sequence[Figure]) -> None:
    """Write the charts of the parts that were measured into the directory."""
    drawn = {
        name: chart
        for name, chart in CHARTS.items()
        if any(figure.name in chart.bars for figure in figures if figure.part == chart.part)
    }
    if not drawn:
        raise SystemExit("benchmarks: there is nothing to draw without the parts wait, echo and aio")
    directory.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, chart in drawn.items():
            canvas = Canvas(figsize=(7.5, 3.6), layout="constrained")
            axes = canvas.subplots()
            draw_bars(axes, chart, [figure for figure in figures if figure.part == chart.part])
            if chart.line:
                axes.axhline(1, color=INK, linewidth=1, linestyle="--")
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.spines[["top", "right"]].set_visible(False)
            # On a phone a chart scrolls sideways: the texts are at the left, where one sees them first.
            axes.set_title(chart.title, fontsize=11, pad=28, loc="left")
            axes.set_xlabel(
                f"{chart.xlabel}\n{machine['python']}; {machine['kernel']}; {machine['machine']}",
                fontsize=9,
                loc="left",
                multialignment="left",
            )
            axes.legend(
                fontsize=9,
                frameon=False,
                ncols=len(chart.bars),
                loc="lower left",
                bbox_to_anchor=(0, 1),
                borderaxespad=0,
                borderpad=0.5,
                handlelength=1,
                columnspacing=1,
            )
            axes.margins(y=0.1)
            metadata = {"Date": None, "Title": chart.title.replace("\n", ", ")}
            canvas.savefig(directory / f"{name}.svg", format="svg", transparent=True, metadata=metadata)
