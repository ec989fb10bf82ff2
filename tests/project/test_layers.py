"""The files of ``csrc`` are in layers, and each includes only lower ones: ``tools/check_layers.py``."""

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check_layers.py"

# A wheel is tested without them.
pytestmark = pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="the sources are not here")

check = runpy.run_path(str(TOOL))
problems: Callable[[Path], list[str]] = check["problems"]


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "csrc", tmp_path / "csrc"))


def test_layers_hold() -> None:
    done = subprocess.run([sys.executable, TOOL], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_graph_is_that_of_the_sources() -> None:
    graph = check["include_graph"]()
    assert "core/repair/rebuild" in graph["core/repair/repair"]
    assert graph["module.c"] > {"core/epoll", "selector/selector"}


def test_readme_answers_with_every_source() -> None:
    table = (ROOT / "csrc" / "README.md").read_text().partition("| Question | File |")[2]
    named = set(re.findall(r"`([a-z_/]+\.[ch])`", table))
    files = {path.relative_to(ROOT / "csrc").as_posix() for path in (ROOT / "csrc").rglob("*.[ch]")}
    assert named - files == set()
    answers = {file.rsplit(".", 1)[0] for file in named}
    assert {file.removesuffix(".c") for file in files if file.endswith(".c")} - answers == set()


def test_readme_has_the_diagram_of_asyncio() -> None:
    shown = "\n".join(check["diagram"]("aio"))
    assert f"\n```text\n{shown}\n```\n" in (ROOT / "csrc" / "README.md").read_text(), (
        "put there: python tools/check_layers.py --diagram aio"
    )


def test_diagram_follows_headers_and_leaves_out_what_others_lead_to(tmp_path: Path) -> None:
    for name, includes in {
        "aio/top.c": ["aio/plain.h", "aio/stream/inner.h", "aio/low.h"],
        "aio/plain.h": ["aio/middle.h"],
        "aio/middle.c": ["aio/low.h", "base/base.h"],
        "aio/middle.h": [],
        "aio/low.c": [],
        "aio/low.h": [],
        "aio/stream/inner.c": ["aio/stream/other.h"],
        "aio/stream/inner.h": [],
        "aio/stream/other.c": ["aio/low.h"],
        "aio/stream/other.h": [],
        "base/base.h": [],
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f'#include "{include}"\n' for include in includes))
    assert check["diagram"]("aio", tmp_path) == [
        "   top      ─► middle, stream/*",
        "   middle   ─► low",
        "   stream/* ─► low",
    ]


@pytest.mark.parametrize(
    ("file", "added", "expected"),
    [
        ("base/fdinfo.c", '#include "core/instance.h"', "base/fdinfo includes core/instance, which is above"),
        ("core/ready.c", '#include "selector/selector_key.h"', "core/ready includes selector/selector_key"),
        ("raw/raw.c", '#include "core/wait.h"', "raw/raw includes core/wait"),
        ("core/interest.h", '#include "instance.h"', "a circle of includes: core/instance -> "),
        ("new.c", "int new;", "new: not in the folder of a layer"),
        ("base/fdinfo.c", "\n" * 400, "base/fdinfo.c: 5"),
        ("base/fdinfo.c", "void\nlong_one(void)\n{\n" + "    ;\n" * 50 + "}", "long_one() has 53 lines"),
    ],
)
def test_violation_is_found(csrc: Path, file: str, added: str, expected: str) -> None:
    assert problems(csrc) == []
    with (csrc / file).open("a") as source:
        source.write(added + "\n")
    assert any(expected in problem for problem in problems(csrc)), problems(csrc)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, ["a", "b", "c"]),
        ({"top": {"a"}, "a": {"b"}, "b": {"a"}}, ["a", "b"]),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, []),
    ],
)
def test_circle_is_found(graph: dict[str, set[str]], expected: list[str]) -> None:
    assert check["find_circle"](graph) == expected
