"""The cost of ``if events & IN`` on the events that a wait yields, as a multiple of the same test on ints.

The time of an empty loop over the same value is taken off, so that it does not flatter the ratio.
"""

import select
from functools import partial
from itertools import repeat

import pyepoll
from pyepoll import Event

from .machine import eventfds, pinned
from .measure import count_for, interleave, ratio
from .report import Bar, Figure

__all__ = ["measure"]


def empty(value: int, count: int) -> None:
    for _events in repeat(value, count):
        pass


def flag(value: Event, count: int) -> None:
    mask = Event.IN
    for events in repeat(value, count):
        if events & mask:
            pass


def integer(value: int, count: int) -> None:
    mask = select.EPOLLIN
    for events in repeat(value, count):
        if events & mask:
            pass


def spelled_flag(value: Event, count: int) -> None:
    for events in repeat(value, count):
        if events & Event.IN:
            pass


def spelled_integer(value: int, count: int) -> None:
    for events in repeat(value, count):
        if events & select.EPOLLIN:
            pass


def reported() -> tuple[Event, int]:
    """Return the events that a wait of each kind yields for the same readable fd."""
    with eventfds(1, ready=True) as fds, pyepoll.Epoll[int]() as ep, select.epoll() as stock:
        ep.register(fds[0], Event.IN)
        stock.register(fds[0], select.EPOLLIN)
        return ep.poll(0)[0][1], stock.poll(0)[0][1]


def measure(rounds: int) -> list[Figure]:
    member, number = reported()
    work = {
        "flag": partial(flag, member),
        "integer": partial(integer, number),
        "spelled flag": partial(spelled_flag, member),
        "spelled integer": partial(spelled_integer, number),
        "no flag": partial(empty, member),
        "no integer": partial(empty, number),
    }
    with pinned():
        count = count_for(work["integer"])
        times = interleave({name: partial(loop, count) for name, loop in work.items()}, rounds)

    def test(name: str, empty: str) -> list[int]:
        return [time - nothing for time, nothing in zip(times[name], times[empty], strict=True)]

    return [
        Figure(
            "flags",
            "events & IN / int test",
            ratio(test("flag", "no flag"), test("integer", "no integer")),
            Bar("<=", 1.5),
        ),
        Figure(
            "flags",
            "events & Event.IN / events & select.EPOLLIN",
            ratio(test("spelled flag", "no flag"), test("spelled integer", "no integer")),
        ),
    ]
