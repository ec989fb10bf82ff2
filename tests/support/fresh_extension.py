"""Stop the session at its start if the extension of this checkout is older than its sources, or missing.

Otherwise tests fail, or pass, for reasons that the sources do not show. An installed wheel has no sources
beside it.
"""

import importlib.util
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def outdated(root: Path) -> str | None:
    """Why the extension in ``root`` have to be built again, or None. The sources are those of setup.py."""
    built = root / "pyepoll" / f"_epoll{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not built.exists():
        return f"{built} is missing"
    newest = max((root / "csrc").rglob("*.[ch]"), key=lambda path: path.stat().st_mtime_ns)
    if newest.stat().st_mtime_ns > built.stat().st_mtime_ns:
        return f"{built} is older than {newest.relative_to(root)}"
    return None


spec = importlib.util.find_spec("pyepoll")
if spec and spec.origin and Path(spec.origin).parent == ROOT / "pyepoll" and (problem := outdated(ROOT)):
    raise SystemExit(f"{problem}: build it again with pip install -e .")
