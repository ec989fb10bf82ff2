"""Compile the C that the figures are multiples of."""

import os
import shlex
import subprocess
from pathlib import Path

__all__ = ["compiled"]

_HERE = Path(__file__).parent
_BUILD = _HERE / ".build"
_FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra"]


def compiled(source: str, *flags: str) -> Path:
    """Compile ``source``, a file of this directory, unless that was done since it last changed."""
    path = _HERE / source
    target = _BUILD / path.stem
    if not target.exists() or target.stat().st_mtime <= path.stat().st_mtime:
        _BUILD.mkdir(exist_ok=True)
        command: list[str | Path] = [
            *shlex.split(os.environ.get("CC", "cc")),
            *_FLAGS,
            *flags,
            "-o",
            target,
            path,
        ]
        subprocess.run(command, check=True)
    return target
