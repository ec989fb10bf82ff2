"""A wheel is built offline, without build isolation, and installed, as docs/howto/wheel.md says."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import ROOT, blocks_of
from support.processes import SANITIZED

BUILD, INSTALL = [
    block.text for block in blocks_of(ROOT / "docs/howto/wheel.md") if block.run_by == Path(__file__)
]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not here"),
    pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler"),
    pytest.mark.skipif(SANITIZED, reason="the compiler would run with the sanitizer"),
]


def checkout(folder: Path) -> Path:
    """A copy of the files that a wheel is made of."""
    built = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "pyepoll"):
        shutil.copytree(ROOT / name, folder / name, ignore=built)
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(command: str, cwd: Path, python: str) -> str:
    """Run a command in a shell in which ``python`` is some interpreter, and no index can be asked."""
    done = subprocess.run(
        ["sh", "-ec", f'python() {{ "{python}" "$@"; }}\n{command}'],
        cwd=cwd,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(cwd),
            "PYEPOLL_CFLAGS": "-O0",
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.lasts(240, always=True)  # It compiles all of the extension.
def test_wheel_is_built_and_installed(tmp_path: Path) -> None:
    tree = checkout(tmp_path)
    run(BUILD, tree, sys.executable)
    (wheel,) = (tree / "dist").iterdir()
    assert wheel.name.startswith("pyepoll-")
    assert wheel.suffix == ".whl"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv/bin/python")
    run(INSTALL, tree, python)
    check = 'python -I -c "import pyepoll; pyepoll.Epoll().close(); print(pyepoll.__file__)"'
    assert run(check, tree, python).startswith(str(tmp_path / "venv"))
