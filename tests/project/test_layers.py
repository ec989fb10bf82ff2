"""The files of ``csrc`` include each other in one direction only."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"

Graph = Mapping[str, set[str]]

# The module's tables name everything, and its state (module.h) is named by everything.
TABLES = {"module.c"}


def unit_of(path: str) -> str:
    """A source file and its header are one unit: what either includes, the other is compiled with."""
    return path if path in TABLES else path.rsplit(".", 1)[0]


def included(source: Path) -> Iterator[str]:
    """Yield the files of csrc that a file includes, as paths below csrc."""
    for name in re.findall(r'^#include "([^"]+)"', source.read_text(), re.MULTILINE):
        beside = (source.parent / name).resolve()
        found = beside if beside.exists() else (CSRC / name).resolve()
        yield found.relative_to(CSRC.resolve()).as_posix()


def include_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for source in sorted(CSRC.rglob("*.[ch]")):
        unit = unit_of(source.relative_to(CSRC).as_posix())
        graph.setdefault(unit, set()).update(map(unit_of, included(source)))
    return {unit: targets - {unit} for unit, targets in graph.items()}


def circle(graph: Graph) -> list[str]:
    """Return units of which each includes the next, and the last the first; empty if there are none."""
    done: set[str] = set()

    def search(unit: str, path: list[str]) -> list[str]:
        if unit in path:
            return path[path.index(unit) :]
        if unit not in done:
            for target in sorted(graph[unit]):
                if found := search(target, [*path, unit]):
                    return found
            done.add(unit)
        return []

    for unit in graph:
        if found := search(unit, []):
            return found
    return []


def upward(graph: Graph, layer: str, allowed: tuple[str, ...]) -> list[str]:
    """Return the includes from the folder ``layer`` to units that do not begin with an allowed prefix."""
    return [
        f"{unit} includes {target}"
        for unit, targets in graph.items()
        if unit.startswith(layer)
        for target in sorted(targets)
        if not target.startswith(allowed)
    ]


def test_no_circle() -> None:
    graph = include_graph()
    assert "core/repair/rebuild" in graph["core/repair/repair"]  # the graph is that of the sources
    assert circle(graph) == []


def test_base_includes_base_only() -> None:
    assert upward(include_graph(), "base/", ("base/", "compat")) == []


def test_core_knows_nothing_above_it() -> None:
    below = ("base/", "core/", "compat", "module", "errors", "flags")
    assert upward(include_graph(), "core/", below) == []


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, ["a", "b", "c"]),
        ({"top": {"a"}, "a": {"b"}, "b": {"a"}}, ["a", "b"]),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, []),
    ],
)
def test_a_circle_is_found(graph: Graph, expected: list[str]) -> None:
    assert circle(graph) == expected


def test_an_include_upward_is_found() -> None:
    graph = {"base/fdinfo": {"compat", "core/instance"}, "core/instance": set()}
    assert upward(graph, "base/", ("base/", "compat")) == ["base/fdinfo includes core/instance"]
