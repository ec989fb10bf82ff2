"""The speed of ``pyepoll.EpollSelector`` as a multiple of that of ``selectors.EpollSelector``.

Each loop is written as a user would write it. *The least* is the bound for every selector: for a wait the
system call and a loop over a list made beforehand, for a change the system calls alone, made by an epoll
that keeps no keys.
"""

import os
import select
import selectors
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, repeat
from selectors import EVENT_READ, EVENT_WRITE

import pyepoll

from .machine import eventfds, pinned
from .measure import count_for, interleave, ratio
from .report import Bar, Figure
from .wait import SIZES, bare_epoll, least

__all__ = ["measure"]

WAIT_BARS = (1.8, 2.5, 2.8, 3.0)
CHANGE_BAR = Bar(">=", 2.0)
CHANGED = 100
READ_WRITE = EVENT_READ | EVENT_WRITE


def wait(sel: selectors.BaseSelector, waits: int) -> None:
    for _ in repeat(None, waits):
        for _key, _events in sel.select(0):
            pass


def modify(sel: selectors.BaseSelector, fds: Sequence[int], count: int) -> None:
    for _ in repeat(None, count):
        for fd in fds:
            sel.modify(fd, READ_WRITE)
        for fd in fds:
            sel.modify(fd, EVENT_READ)


def least_modify(ep: select.epoll, fds: Sequence[int], count: int) -> None:
    less, more = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
    for _ in repeat(None, count):
        for fd in fds:
            ep.modify(fd, more)
        for fd in fds:
            ep.modify(fd, less)


def reregister(sel: selectors.BaseSelector, fds: Sequence[int], count: int) -> None:
    for _ in repeat(None, count):
        for fd in fds:
            sel.unregister(fd)
            sel.register(fd, EVENT_READ)


def least_reregister(ep: select.epoll, fds: Sequence[int], count: int) -> None:
    mask = select.EPOLLIN
    for _ in repeat(None, count):
        for fd in fds:
            ep.unregister(fd)
            ep.register(fd, mask)


def replace_data(sel: selectors.BaseSelector, fds: Sequence[int], count: int) -> None:
    for number in range(count):
        for fd in fds:
            sel.modify(fd, EVENT_READ, number)


@contextmanager
def idle_pipes(count: int) -> Iterator[list[int]]:
    """Read ends, which have neither of the two events, so that the kernel's share is as small as it gets."""
    pipes = [os.pipe() for _ in range(count)]
    yield [read for read, _ in pipes]
    for fd in chain.from_iterable(pipes):
        os.close(fd)


def prepared(stack: ExitStack, fds: Sequence[int]) -> tuple[pyepoll.EpollSelector, selectors.EpollSelector]:
    ours = stack.enter_context(pyepoll.EpollSelector())
    stock = stack.enter_context(selectors.EpollSelector())
    for fd in fds:
        ours.register(fd, EVENT_READ)
        stock.register(fd, EVENT_READ)
    return ours, stock


def compare(
    name: str, work: dict[str, Callable[[int], None]], rounds: int, bar: Bar, size: int
) -> list[Figure]:
    """Time the loops ``stock``, ``ours`` and, if there is one, ``least``."""
    count = count_for(work["ours"])
    times = interleave({who: partial(loop, count) for who, loop in work.items()}, rounds)
    figures = [
        Figure("selector", f"selectors / pyepoll: {name}", ratio(times["stock"], times["ours"]), bar, size)
    ]
    if "least" in times:
        value = ratio(times["stock"], times["least"])
        figures.append(Figure("selector", f"selectors / the least: {name}", value, size=size))
    return figures


def waits(rounds: int) -> list[Figure]:
    figures = []
    for size, limit in zip(SIZES, WAIT_BARS, strict=True):
        with pinned(), ExitStack() as stack:
            fds = stack.enter_context(eventfds(size, ready=True))
            ours, stock = prepared(stack, fds)
            ep: pyepoll.Epoll[int] = stack.enter_context(pyepoll.Epoll())
            for fd in fds:
                ep.register(fd, pyepoll.Event.IN)
            for ready in (ours.select(0), stock.select(0), ep.poll(0)):
                if len(ready) != size:
                    raise RuntimeError(f"a wait on {size} ready fds returned {len(ready)}")
            work: dict[str, Callable[[int], None]] = {
                "stock": partial(wait, stock),
                "ours": partial(wait, ours),
                "least": partial(least, bare_epoll(stack, fds), ep.poll(0)),
            }
            figures += compare("select(0)", work, rounds, Bar(">=", limit), size)
    return figures


def changes(rounds: int) -> list[Figure]:
    with pinned(), ExitStack() as stack:
        fds = stack.enter_context(idle_pipes(CHANGED))
        ours, stock = prepared(stack, fds)
        bare = stack.enter_context(select.epoll())
        for fd in fds:
            bare.register(fd, select.EPOLLIN)
        kinds: dict[str, dict[str, Callable[[int], None]]] = {
            "modify": {
                "stock": partial(modify, stock, fds),
                "ours": partial(modify, ours, fds),
                "least": partial(least_modify, bare, fds),
            },
            "unregister + register": {
                "stock": partial(reregister, stock, fds),
                "ours": partial(reregister, ours, fds),
                "least": partial(least_reregister, bare, fds),
            },
            "modify of the data alone": {
                "stock": partial(replace_data, stock, fds),
                "ours": partial(replace_data, ours, fds),
            },
        }
        return [
            figure
            for name, work in kinds.items()
            for figure in compare(name, work, rounds, CHANGE_BAR, CHANGED)
        ]


def measure(rounds: int) -> list[Figure]:
    return waits(rounds) + changes(rounds)
