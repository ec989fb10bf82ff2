"""The cost of idle registrations to a wait."""

from functools import partial
from itertools import repeat

import pyepoll

from .machine import eventfds, pinned
from .measure import count_for, interleave, ratio, spread
from .report import Bar, Figure

__all__ = ["measure"]

SIZE = 19_000


def poll(ep: pyepoll.Epoll[int], count: int) -> None:
    for _ in repeat(None, count):
        ep.poll(0)


def measure(rounds: int) -> list[Figure]:
    with (
        pinned(),
        eventfds(SIZE, ready=False) as fds,
        pyepoll.Epoll[int]() as crowded,
        pyepoll.Epoll[int]() as lonely,
    ):
        for fd in fds:
            crowded.register(fd, pyepoll.Event.IN)
        lonely.register(fds[0], pyepoll.Event.IN)
        count = count_for(partial(poll, lonely))
        work = {"crowded": partial(poll, crowded, count), "lonely": partial(poll, lonely, count)}
        times = interleave(work, rounds)
    return [
        Figure(
            "idle", "empty poll(0)", spread([time / count for time in times["lonely"]]), size=1, unit="ns"
        ),
        Figure(
            "idle", "empty poll(0) / with 1", ratio(times["crowded"], times["lonely"]), Bar("<=", 1.1), SIZE
        ),
    ]
