"""Two handles on one epoll, and a handle on an epoll that others fill."""

import errno
import os
import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pyepoll
from pyepoll import Event, raw

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[[int], int]

# After one handle has closed the epoll, its fd may be another file.


@pytest.fixture
def left() -> Iterator[Epoll]:
    """A handle of an epoll that another handle has closed; its fd is another epoll now."""
    ep = pyepoll.Epoll[Any]()
    left = pyepoll.Epoll[Any].fromfd(ep.fileno())
    number = ep.fileno()
    ep.close()
    with select.epoll() as other:
        os.dup2(other.fileno(), number)
        other.register(other_fd := os.eventfd(1), select.EPOLLIN)
        yield left
        assert other.poll(0) == [(other_fd, select.EPOLLIN)]
        os.close(other_fd)
        if other.fileno() != number:
            os.close(number)
    left.close()


CALLS: dict[str, Callable[[Epoll, int], object]] = {
    "fileno": lambda ep, fd: ep.fileno(),
    "get_busy_poll": lambda ep, fd: ep.get_busy_poll(),
    "set_busy_poll": lambda ep, fd: ep.set_busy_poll(1, 8, False),
    "register": lambda ep, fd: ep.register(fd, Event.IN),
    "modify": lambda ep, fd: ep.modify(fd, Event.IN),
    "rearm": lambda ep, fd: ep.rearm(fd),
    "unregister": lambda ep, fd: ep.unregister(fd),
    "poll": lambda ep, fd: ep.poll(0),
    "wait": lambda ep, fd: ep.wait(0),
    "with": lambda ep, fd: ep.__enter__(),
    "in an epoll": lambda ep, fd: pyepoll.Epoll[Any]().register(ep, Event.IN),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_handle_acts_on_no_other_file(left: Epoll, eventfd: Eventfd, call: str) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="closed through another object") as caught:
            CALLS[call](left, eventfd(1))
        assert caught.value.errno == errno.EBADF


def test_a_closed_handle_can_be_inspected(left: Epoll) -> None:
    assert "closed through another object" in repr(left)
    assert not left.closed
    assert (len(left), dict(left.registrations), left.stats().waits) == (0, {}, 0)
    assert list(iter(left)) == []
    left.close()
    assert left.closed


# Events of others come out as select.epoll hands them out.


@pytest.mark.parametrize(
    "word",
    [0, 1, 5, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 0x1234_5678_0000_0005, 2**63 - 1, 2**64 - 1],
    ids=hex,
)
@pytest.mark.parametrize("how", ["poll", "wait", "iterator"])
def test_foreign_events_have_stocks_data(eventfd: Eventfd, word: int, how: str) -> None:
    with select.epoll() as stock:
        raw.epoll_ctl(stock.fileno(), raw.EPOLL_CTL_ADD, eventfd(1), raw.EPOLLIN, word)
        expected = stock.poll(0)
        with pyepoll.Epoll[Any].fromfd(os.dup(stock.fileno())) as ep:
            got = ep.poll(0) if how == "poll" else list(ep.wait(0)) if how == "wait" else [next(iter(ep))]
            assert got == expected
            assert type(got[0][0]) is int


def test_an_epoll_filled_by_stock_reports_stocks_events(eventfd: Eventfd) -> None:
    fds = [eventfd(1) for _ in range(5)]
    with select.epoll() as stock:
        for fd in fds:
            float(f"1.{fd}")  # The bytes left on the stack get into the upper half of the epoll data.
            stock.register(fd, select.EPOLLIN)
        with pyepoll.Epoll[Any].fromfd(os.dup(stock.fileno())) as ep:
            assert sorted(ep.poll(0)) == sorted(stock.poll(0))
            # One that is registered here has data, whatever the others have.
            ep.modify(fds[0], Event.IN, "here")
            assert sorted(map(str, ep.poll(0))) == sorted(
                str(("here" if fd == fds[0] else fd, Event.IN)) for fd in fds
            )
