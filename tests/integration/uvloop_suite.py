"""uvloop's own test suite with our loop: it passes each test that asyncio's own loop passes.

The session ``uvloop-suite`` of noxfile.py runs this file. The tests that neither passes ask for uvloop or
libuv; `NOT_FOR_ASYNCIO` lists them with reasons.
"""

import importlib
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS_PER_TEST = 10
"""Some of the tests that ask for libuv hang on other loops."""

ARGUMENTS = "arguments or errors that only uvloop has"
LIBUV = "asks for libuv"
UV_CONTEXT = "calls of the protocol in the context of create_server(), as uvloop makes them"
PSEUDO = "sockets that uvloop closes late, or objects that are no sockets"
DEVELOPERS = "checks uvloop's sources with the tools of its developers"
REPORTS = "expects uvloop's reports or its order of calls in TLS"

NOT_FOR_ASYNCIO: dict[str, str] = {}
"""Tests, by the end of their name, that need not pass; the value is the reason."""


def tests_of_uvloop(folder: Path) -> Path:
    """The tests of the installed release, from its source distribution."""
    release = f"uvloop-{importlib.import_module('uvloop').__version__}"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "uvloop"]
    subprocess.run([*download, "-d", folder, release.replace("-", "==")], check=True)
    with tarfile.open(folder / f"{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    # Away from the sources, which hide the installed package.
    (folder / "work").mkdir()
    return (folder / release / "tests").rename(folder / "work" / "tests")


def outcomes(tests: Path, loop: str) -> dict[str, str]:
    """Each test and its outcome: passed, failed or skipped."""
    report = tests.parent / f"{loop}.xml"
    options = ["-q", "-n", "2", f"--timeout={SECONDS_PER_TEST}", "-p", "uvloop_plugin"]
    options += ["-p", "no:cacheprovider", f"--junitxml={report}", "tests"]
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYEPOLL_UVLOOP_SUITE": loop}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tests.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    assert report.exists(), done.stdout[-5000:]
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = bool(kinds & {"failure", "error"})
        found[name] = "failed" if bad or found.get(name) == "failed" else "skipped" if kinds else "passed"
    return found


def failures(found: dict[str, str]) -> set[str]:
    return {name for name, outcome in found.items() if outcome == "failed"}


@pytest.mark.lasts(3600)
def test_uvloops_own_tests_pass_as_with_asyncios_loop(tmp_path: Path, show: Callable[[str], None]) -> None:
    tests = tests_of_uvloop(tmp_path)
    stock = outcomes(tests, "stock")
    ours = outcomes(tests, "pyepoll")
    for name, found in ("stock", stock), ("pyepoll", ours):
        show(f"{name}: {dict(Counter(found.values()))}")
    assert ours.keys() == stock.keys()
    worse = failures(ours) - failures(stock)
    better = failures(stock) - failures(ours)
    show(f"pass with ours only: {sorted(better)}")
    assert worse == set()
    unexplained = {name for name in failures(ours) if name not in NOT_FOR_ASYNCIO}
    assert unexplained == set(), "failed, but not in NOT_FOR_ASYNCIO"
