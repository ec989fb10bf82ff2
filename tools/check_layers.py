#!/usr/bin/env python3
"""Check the layout of csrc: layers, circles of includes, and the size of files and functions.

Prints the violations; the exit status is 1 if there are any.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# A folder may include itself and the folders before it.
LAYERS = ("base", "raw", "core", "selector", "aio")

# The tables of the module include everything, and nothing includes them.
TABLES = {"module.c"}

FILE_LINES = 400
FUNCTION_LINES = 50

Graph = Mapping[str, set[str]]


def unit_of(path: str) -> str:
    """Return the name of a source file and its header, which count as one."""
    return path if path in TABLES else path.rsplit(".", 1)[0]


def included_by(source: Path, csrc: Path) -> Iterator[str]:
    """Yield the files of csrc that a file includes, as paths below csrc."""
    for name in re.findall(r'^#\s*include "([^"]+)"', source.read_text(), re.MULTILINE):
        yield (
            name if (csrc / name).exists() else (source.parent / name).resolve().relative_to(csrc).as_posix()
        )


def include_graph(csrc: Path = CSRC) -> dict[str, set[str]]:
    """Return the units that each unit includes."""
    graph: dict[str, set[str]] = {}
    for source in sorted(csrc.rglob("*.[ch]")):
        unit = unit_of(source.relative_to(csrc).as_posix())
        graph.setdefault(unit, set()).update(map(unit_of, included_by(source, csrc)))
    return {unit: targets - {unit} for unit, targets in graph.items()}


def find_circle(graph: Graph) -> list[str]:
    """Return a circle of units, each including the next one; empty if there are none."""
    done: set[str] = set()

    def search(unit: str, path: list[str]) -> list[str]:
        if unit in path:
            return path[path.index(unit) :]
        if unit not in done:
            for target in sorted(graph.get(unit, ())):
                if found := search(target, [*path, unit]):
                    return found
            done.add(unit)
        return []

    for unit in graph:
        if found := search(unit, []):
            return found
    return []


def units_with_code(graph: Graph, layer: str, csrc: Path) -> dict[str, set[str]]:
    """Return the units of a layer that have a .c file, and which of them each includes, also through headers.

    The files of a folder are one: ``stream/*``.
    """

    def name(unit: str) -> str:
        _, first, *rest = unit.split("/")
        return f"{first}/*" if rest else first

    def included(unit: str, seen: set[str]) -> Iterator[str]:
        for target in graph[unit] - seen:
            seen.add(target)
            if (csrc / f"{target}.c").exists():
                yield target
            else:
                yield from included(target, seen)

    found: dict[str, set[str]] = {}
    for unit in graph:
        if unit.startswith(f"{layer}/") and (csrc / f"{unit}.c").exists():
            below = {name(target) for target in included(unit, set()) if target.startswith(f"{layer}/")}
            found.setdefault(name(unit), set()).update(below - {name(unit)})
    return found


def diagram(layer: str, csrc: Path = CSRC) -> list[str]:
    """Return a line for each file of a layer, those above first; what others lead to is left out."""
    graph = units_with_code(include_graph(csrc), layer, csrc)

    def below(unit: str) -> set[str]:
        return graph[unit].union(*map(below, graph[unit]))

    def height(unit: str) -> int:
        return max((height(target) + 1 for target in graph[unit]), default=0)

    direct = {unit: targets.difference(*map(below, targets)) for unit, targets in graph.items()}
    units = sorted(graph, key=lambda unit: (-height(unit), unit))
    width = max(map(len, units))
    return [f"   {unit:<{width}} ─► {', '.join(sorted(direct[unit]))}" for unit in units if direct[unit]]


def layer_problems(graph: Graph) -> Iterator[str]:
    """Yield the includes that the order of the layers forbids."""
    for unit, targets in graph.items():
        if unit in TABLES:
            continue
        layer = unit.split("/")[0]
        if layer not in LAYERS or "/" not in unit:
            yield f"{unit}: not in the folder of a layer ({', '.join(LAYERS)})"
            continue
        allowed = LAYERS[: LAYERS.index(layer) + 1]
        for target in sorted(targets):
            if target in TABLES or target.split("/")[0] not in allowed:
                yield f"{unit} includes {target}, which is above the layer {layer}"


def size_problems(name: str, text: str) -> Iterator[str]:
    """Yield the file and its functions, from the name to the closing brace, that are too long."""
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        yield f"{name}: {len(lines)} lines, more than {FILE_LINES}"
    start = 0
    function = ""
    for number, line in enumerate(lines, 1):
        if match := re.match(r"(\w+)\(", line):
            start, function = number, match[1]
        elif line == "}" and start != 0:
            if number - start + 1 > FUNCTION_LINES:
                length = number - start + 1
                yield f"{name}:{start}: {function}() has {length} lines, more than {FUNCTION_LINES}"
            start = 0


def problems(csrc: Path = CSRC) -> list[str]:
    """Return all that is wrong."""
    graph = include_graph(csrc)
    found = list(layer_problems(graph))
    if circle := find_circle(graph):
        found.append("a circle of includes: " + " -> ".join([*circle, circle[0]]))
    for source in sorted(csrc.rglob("*.[ch]")):
        found += size_problems(source.relative_to(csrc).as_posix(), source.read_text())
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", action="store_true", help="print the includes of each file instead")
    parser.add_argument("--diagram", choices=LAYERS, help="print the diagram of a layer instead")
    chosen = parser.parse_args(arguments)
    if chosen.graph:
        for unit, targets in include_graph().items():
            print(unit, "->", " ".join(sorted(targets)) or "(nothing)")
        return 0
    if chosen.diagram:
        print(*diagram(chosen.diagram), sep="\n")
        return 0
    if not CSRC.is_dir():
        print("no csrc here", file=sys.stderr)
        return 2
    found = problems()
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
