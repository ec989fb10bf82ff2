"""The suites of other packages have the same outcome with stock and with pyepoll, to the names of failures.

The session ``upstream`` of noxfile.py runs this file, in an environment that has the packages.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pages import ROOT

PYTEST = ["pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "-rfE"]
IN_PARALLEL = ["-n", str(os.cpu_count())]
TWISTED_REACTOR = Path(__file__).parent / "twisted_reactor_suite.py"
SUITES = {
    "tornado": [sys.executable, "-m", "tornado.test"],
    # Left out: the loop is of a module whose name begins with asyncio or uvloop.
    "uvicorn": [*PYTEST, *IN_PARALLEL, "--deselect=tests/test_auto_detection.py::test_loop_auto", "tests"],
    "aiohttp": [
        *[*PYTEST, *IN_PARALLEL, "-m", "not dev_mode and not autobahn and not internal"],
        *["--ignore-glob=tests/test_benchmarks*", "tests"],
    ],
    # Half of the tests are made once for each reactor that there is.
    "twisted_asyncio": ["trial", "--reactor=asyncio", "twisted.internet"],
    "twisted_epoll": ["trial", "--reactor=epoll", "twisted.internet"],
    "twisted_plugin": [sys.executable, str(TWISTED_REACTOR)],
    # Left out: the text of an OSError, which in pyepoll names the operation, and tools of trio's developers.
    "trio": [
        *[*PYTEST, "-W", "ignore", "-p", "trio._tests.pytest_plugin", "-m", "not redistributors_should_skip"],
        *["-k", "not test_wait_on_invalid_object", "--ignore-glob=/*/_tests/tools/*", "--pyargs", "trio"],
    ],
}
SOURCES = {
    "aiohttp": ["tests", "examples", "pytest.ini", "README.rst"],
    "uvicorn": ["tests", "pyproject.toml"],
}
"""Parts of the source distribution; the other packages bring their tests in the wheel."""

OUTCOME = re.compile(r"^(FAIL|ERROR|OK|PASSED|Ran |twisted\.internet\.test\.)|[0-9]+ passed")
HOURS = 3600


def sources(suite: str, folder: Path) -> Path:
    """A folder with what a suite needs of the source distribution."""
    needs = folder / "needs"
    needs.mkdir()
    if suite in SOURCES:
        release = f"{suite}-{importlib.import_module(suite).__version__}"
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", suite]
        subprocess.run([*download, "-d", folder, release.replace("-", "==")], check=True)
        with tarfile.open(folder / f"{release}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        for part in SOURCES[suite]:
            (folder / release / part).rename(needs / part)
    return needs


def outcome(suite: str, needs: Path, env: dict[str, str]) -> set[str]:
    """Counts and failures of a suite."""
    folder = needs.with_name("work")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(needs, folder)
    done = subprocess.run(
        ["nice", *SUITES[suite]],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1 * HOURS,
    )
    lines = filter(OUTCOME.search, done.stdout.splitlines())
    found = {re.sub(r" in [0-9.]+s.*| - .*|^=+ ", "", line) for line in lines}
    has_run = any(re.search(r"[1-9][0-9]* passed|^Ran [1-9]", line) for line in found)
    assert has_run, f"{suite} ended with status {done.returncode}:\n{done.stdout[-5000:]}"
    return found


@pytest.mark.lasts(6 * HOURS)
@pytest.mark.parametrize("suite", SUITES)
def test_suite_has_the_same_outcome(suite: str, tmp_path: Path, show: Callable[[str], None]) -> None:
    needs, tally = sources(suite, tmp_path), tmp_path / "tally"
    plugins, everywhere = ROOT / "examples/plugins", ROOT / "tests/integration/everywhere"
    # On a busy machine some tests fail by themselves: a difference has to be seen three times.
    for _ in range(3):
        stock = outcome(suite, needs, {"PYTHONPATH": str(plugins)})
        env = {"PYTHONPATH": f"{everywhere}:{plugins}", "PYEPOLL_TALLY": str(tally)}
        ours = outcome(suite, needs, env)
        assert tally.exists(), f"{suite} has not used pyepoll"
        if stock == ours:
            break
        show(f"differs, stock: {sorted(stock - ours)}, pyepoll: {sorted(ours - stock)}")
    show("\n  ".join(sorted(ours)))
    assert ours == stock
