"""The cost of changing the interest list, as a multiple of ``select.epoll``'s time for the same.

The eventfds are idle and the masks ask for no event that they have, so that the kernel's share, which
both pay, is as small as it gets.
"""

import select
from collections.abc import Sequence
from functools import partial
from itertools import repeat

import pyepoll

from .machine import eventfds, pinned
from .measure import count_for, interleave, ratio
from .report import Bar, Figure

__all__ = ["measure"]

SIZE = 100
BAR = Bar("<=", 1.1)


def modify(ep: pyepoll.Epoll[int], fds: Sequence[int], count: int) -> None:
    less, more = pyepoll.Event.IN, pyepoll.Event.IN | pyepoll.Event.PRI
    for _ in repeat(None, count):
        for fd in fds:
            ep.modify(fd, more)
        for fd in fds:
            ep.modify(fd, less)


def stock_modify(ep: select.epoll, fds: Sequence[int], count: int) -> None:
    less, more = select.EPOLLIN, select.EPOLLIN | select.EPOLLPRI
    for _ in repeat(None, count):
        for fd in fds:
            ep.modify(fd, more)
        for fd in fds:
            ep.modify(fd, less)


def reregister(ep: pyepoll.Epoll[int], fds: Sequence[int], count: int) -> None:
    mask = pyepoll.Event.IN
    for _ in repeat(None, count):
        for fd in fds:
            ep.unregister(fd)
            ep.register(fd, mask)


def reregister_with_data(ep: pyepoll.Epoll[object], fds: Sequence[int], count: int) -> None:
    mask, data = pyepoll.Event.IN, object()
    for _ in repeat(None, count):
        for fd in fds:
            ep.unregister(fd)
            ep.register(fd, mask, data)


def stock_reregister(ep: select.epoll, fds: Sequence[int], count: int) -> None:
    mask = select.EPOLLIN
    for _ in repeat(None, count):
        for fd in fds:
            ep.unregister(fd)
            ep.register(fd, mask)


def measure(rounds: int) -> list[Figure]:
    with (
        pinned(),
        eventfds(SIZE, ready=False) as fds,
        pyepoll.Epoll[int]() as ep,
        pyepoll.Epoll[object]() as ep_with_data,
        select.epoll() as stock,
    ):
        for fd in fds:
            ep.register(fd, pyepoll.Event.IN)
            ep_with_data.register(fd, pyepoll.Event.IN, object())
            stock.register(fd, select.EPOLLIN)
        work = {
            "modify": partial(modify, ep, fds),
            "stock modify": partial(stock_modify, stock, fds),
            "reregister": partial(reregister, ep, fds),
            "reregister with data": partial(reregister_with_data, ep_with_data, fds),
            "stock reregister": partial(stock_reregister, stock, fds),
        }
        count = count_for(work["stock modify"])
        times = interleave({name: partial(loop, count) for name, loop in work.items()}, rounds)
    pairs = (
        ("modify / select.epoll", "modify", "stock modify"),
        ("unregister + register / select.epoll", "reregister", "stock reregister"),
        ("the same with data=object", "reregister with data", "stock reregister"),
    )
    return [Figure("ctl", name, ratio(times[above], times[below]), BAR) for name, above, below in pairs]
