"""The packages that the tools need, which are those of the extra cli."""

import importlib.util

NAMES = ("psutil", "rich")

# The name pyepoll on the public index belongs to another project: never suggest to install it by name.
HOW = (
    "pip install psutil rich; or with the wheel or checkout that this pyepoll is from, its extra cli, "
    "pip install 'PATH[cli]'"
)
"""How to install them, for error messages."""


def missing() -> list[str]:
    """Return which of them are not installed."""
    return [name for name in NAMES if importlib.util.find_spec(name) is None]
