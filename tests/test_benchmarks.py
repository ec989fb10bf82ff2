"""The benchmarks run and print each figure beside its bar. What they measure is not judged here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("cc") is None, reason="the floor is built with cc")
@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="not in this copy of the tests")
def test_figures_have_bars(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "flags", "ctl", "--quick", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())["figures"]
    assert {figure["part"] for figure in figures} == {"flags", "ctl"}
    assert all(figure["value"]["median"] > 0 for figure in figures)
    assert sum(figure["bar"] is not None for figure in figures) >= 3
    assert all(figure["name"] in done.stdout for figure in figures)
