"""LoopSelector: the kernel and the table agree when Python code, or a closed file, comes in between."""

import asyncio
import os
import socket
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from support.kernel import fdinfo

from pyepoll import aio

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def sel() -> Iterator[aio.LoopSelector]:
    with aio.LoopSelector() as sel:
        yield sel


@pytest.fixture
def pair() -> Iterator[Sockets]:
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


class Finalized:
    """Data whose finalizer unregisters the fd."""

    def __init__(self, sel: aio.LoopSelector, fd: int) -> None:
        self.sel, self.fd = sel, fd
        self.removed: list[int] = []

    def __del__(self) -> None:
        self.removed.append(self.sel.unregister(self.fd).fd)


def test_modify_with_a_finalizer_that_unregisters(sel: aio.LoopSelector, pair: Sockets) -> None:
    fd = pair[0].fileno()
    old = Finalized(sel, fd)
    removed = old.removed
    sel.register(fd, EVENT_READ, old)
    del old
    key = sel.modify(fd, EVENT_READ | EVENT_WRITE, "new")
    assert removed == [fd]
    assert sel.get_map()[fd] == key
    assert sel.select(0) == [(key, EVENT_WRITE)]
    sel.unregister(fd)
    assert len(sel.get_map()) == 0
    assert sel.select(0) == []
    assert fdinfo(sel._selector) == {}
