"""``python -m benchmarks.contention``: CPU time of ``modify`` in 1, 4 and 8 threads, beside select.epoll's.

Each thread changes an fd of its own, of one epoll that all share, or of an epoll of its own. Bounded:
every block makes the same number of changes.
"""

import argparse
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from time import process_time_ns
from typing import Any, Protocol

import pyepoll

from .machine import describe, eventfds
from .measure import in_turns, ratio, spread

__all__: list[str] = []

THREADS = (1, 4, 8)
CHANGES = 20_000
ROUNDS = 15
MOST = 1.2
"""How many times select.epoll's CPU time the threads may take."""


class Poller(Protocol):
    def modify(self, fd: int, eventmask: int, /) -> object: ...


def change(poller: Poller, fd: int, count: int, start: threading.Barrier) -> None:
    start.wait()
    for _ in repeat(None, count // 2):
        poller.modify(fd, select.EPOLLIN)
        poller.modify(fd, select.EPOLLIN | select.EPOLLPRI)


def cpu_ns(pollers: Sequence[Poller], fds: Sequence[int]) -> int:
    """Return the time of ``CHANGES`` changes, divided among a thread for each fd."""
    start = threading.Barrier(len(fds) + 1)
    threads = [
        threading.Thread(target=change, args=(poller, fd, CHANGES // len(fds), start))
        for poller, fd in zip(pollers, fds, strict=True)
    ]
    for thread in threads:
        thread.start()
    before = process_time_ns()
    start.wait()
    for thread in threads:
        thread.join()
    return process_time_ns() - before


def measure(threads: int, shared: bool, rounds: int) -> str:
    """Return a line with the nanoseconds of one change of either, and their ratio."""
    makers: dict[str, Callable[[], pyepoll.Epoll[int] | select.epoll]] = {
        "pyepoll": pyepoll.Epoll,
        "select.epoll": select.epoll,
    }
    with eventfds(threads, ready=False) as fds, ExitStack() as stack:
        blocks = {}
        for name, make in makers.items():
            pollers: list[Any] = [stack.enter_context(make()) for _ in range(1 if shared else threads)]
            pollers = pollers * threads if shared else pollers
            for poller, fd in zip(pollers, fds, strict=True):
                poller.register(fd, select.EPOLLIN)
            blocks[name] = partial(cpu_ns, pollers, fds)
            blocks[name]()
        times: dict[str, list[int]] = {name: [] for name in blocks}
        for name in in_turns(blocks, rounds):
            times[name].append(blocks[name]())
    change = ratio(times["pyepoll"], times["select.epoll"])
    ours, stock = (spread(times[name]).median / CHANGES for name in makers)
    return (
        f"{threads:7}  {'shared' if shared else 'own':6} {ours:9,.0f} {stock:13,.0f} "
        f"{change.median:6.2f}  {change.low:.2f} .. {change.high:.2f}  "
        f"{'yes' if change.median <= MOST else 'NO'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} if not given")
    rounds = parser.parse_args().rounds
    print(f"{describe()['python']}; load {describe()['load']}; {rounds} rounds; bar: ratio <= {MOST}")
    print("threads  epoll   ns (ours)  ns (stock)  ratio  quartiles     met")
    for shared in (True, False):
        for threads in THREADS:
            print(measure(threads, shared, rounds), flush=True)


if __name__ == "__main__":
    main()
