"""EpollSelector with events of 0: PRI, RDHUP and the like alone, without IN and OUT."""

import os
import selectors
import socket
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from pyepoll import EpollSelector, Event

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def sel() -> Iterator[EpollSelector]:
    with EpollSelector() as sel:
        yield sel


def mask_of(sel: EpollSelector, fd: int) -> int:
    mask: int = sel._selector.registrations[fd][0]
    return mask


def test_out_of_band_data_alone(sel: EpollSelector, tcp_pair: Pair) -> None:
    a, b = tcp_pair
    key = sel.register(a, 0, "data", flags=Event.PRI)
    assert key == (a, a.fileno(), 0, "data")
    assert mask_of(sel, a.fileno()) == Event.PRI
    b.send(b"ordinary")
    assert sel.select(0.05) == []
    b.send(b"!", socket.MSG_OOB)
    assert sel.select(10) == [(key, EVENT_READ)]
    assert a.recv(1, socket.MSG_OOB) == b"!"
    assert sel.select(0) == []


def test_half_close_alone(sel: EpollSelector, socketpair: Pair) -> None:
    """It is reported while reading is paused and data waits to be read."""
    a, b = socketpair
    key = sel.register(a, 0, flags=Event.RDHUP)
    b.send(b"unread")
    assert sel.select(0) == []
    b.shutdown(socket.SHUT_WR)
    assert sel.select(10) == [(key, EVENT_READ)]


def test_modify_to_and_from_no_events(sel: EpollSelector, socketpair: Pair) -> None:
    a, b = socketpair
    sel.register(a, EVENT_READ, flags=Event.RDHUP)
    b.send(b"unread")
    key = sel.modify(a, 0)
    assert sel.select(0) == []
    assert mask_of(sel, a.fileno()) == Event.RDHUP
    b.shutdown(socket.SHUT_WR)
    assert sel.select(10) == [(key, EVENT_READ)]
    key = sel.modify(a, EVENT_WRITE)
    assert sel.select(10) == [(key, EVENT_WRITE)]
    assert sel.modify(a, 0, flags=Event.PRI | Event.ET).events == 0
    assert mask_of(sel, a.fileno()) == Event.PRI | Event.ET


def test_room_for_priority_data_is_room_to_write(sel: EpollSelector, socketpair: Pair) -> None:
    a, _ = socketpair
    key = sel.register(a, 0, flags=Event.WRNORM)
    assert sel.select(10) == [(key, EVENT_WRITE)]


def test_hang_up_alone_is_reported_with_no_events(sel: EpollSelector) -> None:
    """As by a registration that modify gave events of 0, in the standard library."""
    read, write = os.pipe()
    try:
        key = sel.register(read, 0, flags=Event.PRI)
        os.close(write)
        assert sel.select(10) == [(key, 0)]
    finally:
        os.close(read)


@pytest.mark.parametrize("flags", [0, None, Event.ET, Event.ONESHOT, Event.WAKEUP | Event.ET])
def test_register_needs_an_event(
    sel: EpollSelector, eventfd: Callable[..., int], flags: Event | None
) -> None:
    fd = eventfd(1)
    with pytest.raises(ValueError, match="Invalid events: 0"):
        sel.register(fd, 0) if flags is None else sel.register(fd, 0, flags=flags)
    assert len(sel.get_map()) == 0


def test_stock_needs_an_event_too(eventfd: Callable[..., int]) -> None:
    with selectors.EpollSelector() as stock, pytest.raises(ValueError, match="Invalid events: 0"):
        stock.register(eventfd(1), 0)
