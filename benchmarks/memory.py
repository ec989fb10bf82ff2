"""The cost of a registration in the memory of the process.

A fresh interpreter opens its eventfds, warms up, and asks the kernel how many bytes of real memory it
has (``Rss`` and ``Swap`` of ``/proc/self/smaps_rollup``, which walks the page tables and so is exact
to the page). Then it registers each fd with default data, has each reported once, and asks again. So
everything counts: the interest list and its slack, the pairs, the ints, the slack of malloc. Huge pages
are off, since one touched byte would count as 2 MiB. The kernel's own share is not in it.

"Reported once" can be done in two ways: a few at a time, as a server sees its connections, or all of them
in one batch, which also needs the longest array for the kernel to fill. The bar is for the larger one.
"""

import ctypes
import gc
import os
import subprocess
import sys
from array import array
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyepoll

from .machine import allow_fds, eventfds
from .measure import spread
from .report import Bar, Figure

__all__ = ["measure"]

SIZES = (5_000, 19_000)
BATCH = 50
PR_SET_THP_DISABLE = 41


def real_memory() -> int:
    gc.collect()
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] in ("Rss:", "Swap:"))


def register_and_report(ep: pyepoll.Epoll[int], fds: Sequence[int], batch: int) -> None:
    for fd in fds:
        ep.register(fd, pyepoll.Event.IN)
    for first in range(0, len(fds), batch):
        some = fds[first : first + batch]
        for fd in some:
            os.eventfd_write(fd, 1)
        for fd, _events in islice(ep, len(some)):
            os.eventfd_read(fd)


def bytes_per_registration(size: int, batch: int) -> float:
    """Measure this very process; only good in a fresh one."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    with eventfds(size, ready=False) as fds, pyepoll.Epoll[int]() as warm, pyepoll.Epoll[int]() as ep:
        # An array makes a new int of each number, as fileno() does: the default data is paid for too.
        numbers = array("i", fds)
        register_and_report(warm, numbers[:BATCH], BATCH)
        real_memory()
        before = real_memory()
        register_and_report(ep, numbers, batch)
        return (real_memory() - before) / size


def in_fresh_process(size: int, batch: int) -> float:
    child = [sys.executable, "-m", __name__, str(size), str(batch)]
    return float(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(rounds: int) -> list[Figure]:
    allow_fds(max(SIZES))
    processes = 5 if rounds >= 50 else 3
    figures = []
    for size in SIZES:
        for name, batch in ((f"reported {BATCH} at a time", BATCH), ("all reported at once", size)):
            value = spread([in_fresh_process(size, batch) for _ in range(processes)])
            figures.append(Figure("memory", f"registration, {name}", value, Bar("<=", 160), size, "bytes"))
    return figures


if __name__ == "__main__":
    print(bytes_per_registration(int(sys.argv[1]), int(sys.argv[2])))
