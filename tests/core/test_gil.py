"""Calls that take the kernel's lock of an epoll release the GIL; a FUSE file may hold that lock long."""

import sysconfig
from collections.abc import Callable
from typing import Any

import pytest
from support.kernel import rebuild
from support.threads import lets_go_of_the_gil

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]

pytestmark = pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="there is no GIL")


def close(ep: Epoll, fd: int) -> None:
    Epoll().close()


def give_up(ep: Epoll, fd: int) -> None:
    Epoll()


def give_up_a_waker(ep: Epoll, fd: int) -> None:
    pyepoll.Waker()


def give_the_fd(ep: Epoll, fd: int) -> None:
    with Epoll() as other:
        other.fileno()


def register_wakeup(ep: Epoll, fd: int) -> None:
    ep.register(fd, Event.IN | Event.WAKEUP)
    ep.unregister(fd)


def modify(ep: Epoll, fd: int) -> None:
    ep.register(fd, Event.IN)
    ep.modify(fd, Event.OUT)
    ep.unregister(fd)


CALLS: list[Callable[[Epoll, int], None]] = [
    close,
    give_up,
    give_up_a_waker,
    give_the_fd,
    register_wakeup,
    modify,
    lambda ep, fd: rebuild(ep),
]


@pytest.mark.parametrize("call", CALLS, ids=[*(call.__name__ for call in CALLS[:-1]), "rebuild"])
def test_calls_that_may_block_release_the_gil(ep: Epoll, eventfd: Callable[..., int], call: Any) -> None:
    fd = eventfd()
    assert lets_go_of_the_gil(lambda: call(ep, fd))
