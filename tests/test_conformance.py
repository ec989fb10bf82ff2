"""CPython's own test.test_epoll passes with pyepoll.Epoll in the place of select.epoll."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("test.test_epoll") is None,
    reason=f"{sys.base_prefix} has no test.test_epoll: this Python comes without CPython's test suite",
)

RUN = """
import importlib, json, select, sys, unittest

module, _, name = sys.argv[1].partition(":")
select.epoll = getattr(importlib.import_module(module), name)
suite = unittest.defaultTestLoader.loadTestsFromName("test.test_epoll")
result = unittest.TextTestRunner(verbosity=2).run(suite)
print(json.dumps({
    "ran": result.testsRun,
    "skipped": sorted(test.id() for test, _ in result.skipped),
    "failed": sorted(test.id() for test, _ in result.failures + result.errors),
}))
"""


def run_suite(epoll: str, cwd: Path) -> tuple[dict[str, Any], str]:
    """Run test.test_epoll with the class ``module:name``; return its result and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, epoll], cwd=cwd, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_swapped_class_passes_what_stock_passes(tmp_path: Path) -> None:
    stock, _ = run_suite("select:epoll", tmp_path)
    ours, printed = run_suite("pyepoll:Epoll", tmp_path)
    assert ours["failed"] == [], printed
    assert ours["ran"] > 0
    assert (ours["ran"], ours["skipped"]) == (stock["ran"], stock["skipped"])
