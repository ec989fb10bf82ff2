"""Compile the C that the figures are multiples of."""

import os
import shlex
import subprocess
from pathlib import Path

__all__ = ["compiled"]

_SOURCES = Path(__file__).parent / "c"
_BUILD = Path(__file__).parent / ".build"
_FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra"]


def compiled(source: str, *flags: str, name: str = "") -> Path:
    """Compile ``source``, a file of ``benchmarks/c``, unless that was done since it last changed.

    The result has the name of the source if no other is given. A header is taken to be everyone's.
    """
    path = _SOURCES / source
    target = _BUILD / (name or path.stem)
    changed = max(file.stat().st_mtime for file in (path, *_SOURCES.glob("*.h")))
    if not target.exists() or target.stat().st_mtime <= changed:
        _BUILD.mkdir(exist_ok=True)
        command: list[str | Path] = [
            *shlex.split(os.environ.get("CC", "cc")),
            *_FLAGS,
            "-o",
            target,
            path,
            *flags,
        ]
        subprocess.run(command, check=True)
    return target
