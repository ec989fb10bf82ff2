"""What the tools need beside this package: the extra cli."""

import importlib.util

NAMES = ("psutil", "rich")

# The name pyepoll on the public index is another project's: nobody must be told to install it by name.
HOW = (
    "pip install psutil rich; or with the wheel or checkout that this pyepoll is from, its extra cli, "
    "pip install 'PATH[cli]'"
)
"""How they are installed, for an error."""


def missing() -> list[str]:
    """Return which of them are not installed."""
    return [name for name in NAMES if importlib.util.find_spec(name) is None]
