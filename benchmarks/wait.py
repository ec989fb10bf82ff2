"""The cost of a ready event, as a multiple of a C loop around ``epoll_wait`` on the same eventfds.

Each contender has its own epoll, with the same files in it, and each loop is written as a user would
write it. ``repeat`` and ``islice`` count in C: counting in Python would cost as much as the event.
"""

import ctypes
import os
import select
import selectors
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice, repeat
from typing import Literal, NamedTuple

import pyepoll
from pyepoll import raw

from .compiler import compiled
from .machine import eventfds, pinned
from .measure import count_for, interleave, ratio, spread
from .report import Bar, Figure

__all__ = ["SIZES", "bare_epoll", "least", "measure"]

SIZES = (1, 10, 100, 1000)


class Claim(NamedTuple):
    name: str
    above: str
    below: str
    relation: Literal["<=", ">="] = "<="
    limits: tuple[float, ...] | None = None


CLAIMS = (
    Claim("endless iteration / C", "endless", "C", "<=", (1.5, 1.4, 1.4, 1.3)),
    Claim("wait(0) / C", "wait", "C", "<=", (1.9, 1.6, 1.5, 1.4)),
    Claim("poll(0) / C", "poll", "C", "<=", (2.0, 1.5, 1.4, 1.25)),
    Claim("the least / C", "least", "C"),
    Claim("select.epoll / C", "select.epoll", "C"),
    Claim("selectors / C", "selectors", "C"),
    Claim("select.epoll / poll(0)", "select.epoll", "poll", ">=", (1.2, 1.3, 1.35, 1.4)),
    Claim("selectors / poll(0)", "selectors", "poll", ">=", (1.8, 2.7, 2.9, 3)),
    Claim("select.epoll / the least", "select.epoll", "least"),
    Claim("selectors / the least", "selectors", "least"),
)


def endless(ep: pyepoll.Epoll[int], size: int, waits: int) -> None:
    for _data, _events in islice(ep, size * waits):
        pass


def wait(ep: pyepoll.Epoll[int], waits: int) -> None:
    for _ in repeat(None, waits):
        for _data, _events in ep.wait(0):
            pass


def poll(ep: pyepoll.Epoll[int], waits: int) -> None:
    for _ in repeat(None, waits):
        for _data, _events in ep.poll(0):
            pass


def least(epfd: int, ready: list[tuple[int, pyepoll.Event]], waits: int) -> None:
    """Make the call on a kernel epoll, and go over a list made beforehand.

    No poller in Python does less for a list of events, so its lead on a peer is the most that
    any poller can.
    """
    buffer = raw.EventBuffer(len(ready))
    for _ in repeat(None, waits):
        raw.epoll_wait(epfd, buffer, 0)
        for _data, _events in ready:
            pass


def bare_epoll(stack: ExitStack, fds: Sequence[int]) -> int:
    """Return a kernel epoll with ``fds``, for *the least*: an Epoll does not wait on its ``fileno()``."""
    epfd = raw.epoll_create1(select.EPOLL_CLOEXEC)
    stack.callback(os.close, epfd)
    for fd in fds:
        raw.epoll_ctl(epfd, raw.EPOLL_CTL_ADD, fd, select.EPOLLIN, fd)
    return epfd


def stock(ep: select.epoll, waits: int) -> None:
    for _ in repeat(None, waits):
        for _fd, _events in ep.poll(0):
            pass


def selector(sel: selectors.BaseSelector, waits: int) -> None:
    for _ in repeat(None, waits):
        for _key, _events in sel.select(0):
            pass


def load_floor() -> ctypes.CDLL:
    library = ctypes.CDLL(str(compiled("floor.c", "-shared", "-fPIC")))
    library.floor_wait.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.POINTER(ctypes.c_uint64)]
    library.floor_wait.restype = ctypes.c_int64
    return library


def floor(library: ctypes.CDLL, epfd: int, size: int, waits: int) -> None:
    total = ctypes.c_uint64()
    seen = library.floor_wait(epfd, waits, total)
    if seen != size * waits:
        raise RuntimeError(f"the C loop saw {seen} events, not {size * waits}")


def contenders(stack: ExitStack, library: ctypes.CDLL, size: int) -> dict[str, Callable[[int], None]]:
    """Return for each contender its loop, a function of how often to wait."""
    fds = stack.enter_context(eventfds(size, ready=True))
    ep: pyepoll.Epoll[int] = stack.enter_context(pyepoll.Epoll())
    c, epoll = stack.enter_context(select.epoll()), stack.enter_context(select.epoll())
    sel = stack.enter_context(selectors.EpollSelector())
    bare = bare_epoll(stack, fds)
    for fd in fds:
        ep.register(fd, pyepoll.Event.IN)
        c.register(fd, select.EPOLLIN)
        epoll.register(fd, select.EPOLLIN)
        sel.register(fd, selectors.EVENT_READ)
    for batch in (list(ep.wait(0)), ep.poll(0), epoll.poll(0), sel.select(0)):
        if len(batch) != size:
            raise RuntimeError(f"a wait on {size} ready fds returned {len(batch)}")
    return {
        "C": partial(floor, library, c.fileno(), size),
        "endless": partial(endless, ep, size),
        "wait": partial(wait, ep),
        "poll": partial(poll, ep),
        "least": partial(least, bare, ep.poll(0)),
        "select.epoll": partial(stock, epoll),
        "selectors": partial(selector, sel),
    }


def measure(rounds: int) -> list[Figure]:
    library = load_floor()
    figures = []
    for place, size in enumerate(SIZES):
        with pinned(), ExitStack() as stack:
            loops = contenders(stack, library, size)
            waits = count_for(loops["C"])
            times = interleave({name: partial(loop, waits) for name, loop in loops.items()}, rounds)
        per_wait = spread([time / waits for time in times["C"]])
        figures.append(Figure("wait", "C, one wait", per_wait, size=size, unit="ns"))
        for claim in CLAIMS:
            value = ratio(times[claim.above], times[claim.below])
            bar = Bar(claim.relation, claim.limits[place]) if claim.limits else None
            figures.append(Figure("wait", claim.name, value, bar, size))
    return figures
