"""Objects that stand for open files are neither copied nor pickled, and say so under every protocol."""

import asyncio
import copy
import functools
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

import pyepoll
from pyepoll import aio, raw

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DUPLICATE: dict[str, Callable[[Any], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": functools.partial(pickle.dumps, protocol=n) for n in PROTOCOLS},
}


def transport(stack: ExitStack) -> Any:
    """A transport of a connection, for the loop's time."""
    loop = stack.enter_context(closing(aio.new_event_loop()))
    ours, peer = socket.socketpair()
    stack.enter_context(peer)
    made, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))

    def end() -> None:
        made.abort()
        loop.run_until_complete(asyncio.sleep(0))

    stack.callback(end)
    return made


def datagram_transport(stack: ExitStack) -> Any:
    loop = stack.enter_context(closing(aio.new_event_loop()))
    made = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )[0]

    def end() -> None:
        made.abort()
        loop.run_until_complete(asyncio.sleep(0))

    stack.callback(end)
    return made


def registrations(stack: ExitStack) -> Any:
    return stack.enter_context(pyepoll.Epoll[Any]()).registrations


def watch(stack: ExitStack) -> Any:
    async def make() -> aio.watch:
        return aio.watch(read.fileno(), pyepoll.Event.IN)

    read, _ = map(stack.enter_context, socket.socketpair())
    loop = stack.enter_context(closing(aio.new_event_loop()))
    return stack.enter_context(closing(loop.run_until_complete(make())))


MAKE: dict[str, Callable[[ExitStack], Any]] = {
    "Child": lambda stack: stack.enter_context(pyepoll.Child(os.getpid())),
    "DatagramTransport": datagram_transport,
    "Epoll": lambda stack: stack.enter_context(pyepoll.Epoll[Any]()),
    "EpollSelector": lambda stack: stack.enter_context(pyepoll.EpollSelector()),
    "EventBuffer": lambda stack: raw.EventBuffer(1),
    "EventLoop": lambda stack: stack.enter_context(closing(aio.new_event_loop())),
    "LoopSelector": lambda stack: stack.enter_context(aio.LoopSelector()),
    "Registrations": registrations,
    "Signals": lambda stack: stack.enter_context(pyepoll.Signals(signal.SIGUSR2)),
    "SocketTransport": transport,
    "Timer": lambda stack: stack.enter_context(pyepoll.Timer()),
    "Waker": lambda stack: stack.enter_context(pyepoll.Waker()),
    "watch": watch,
}


@pytest.fixture(params=MAKE)
def thing(request: pytest.FixtureRequest) -> Iterator[Any]:
    with ExitStack() as stack:
        yield MAKE[request.param](stack)


@pytest.mark.parametrize("how", DUPLICATE)
def test_refusal_names_the_type(thing: Any, how: str) -> None:
    with pytest.raises(TypeError) as caught:
        DUPLICATE[how](thing)
    assert "pickle" in str(caught.value)
    assert type(thing).__name__ in str(caught.value)
    assert "__getstate__" not in str(caught.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_subclass_with_a_state_of_its_own_is_refused_too(protocol: int) -> None:
    """The class that a program makes of it has a dict, and nothing of the file in it."""

    class Mine(pyepoll.EpollSelector):
        pass

    with Mine() as mine, pytest.raises(TypeError, match="'Mine'"):
        pickle.dumps(mine, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_map_of_a_closed_selector_can_be_pickled(protocol: int) -> None:
    """A mapping without entries."""
    with pyepoll.EpollSelector() as selector:
        mapping = selector.get_map()
    assert dict(pickle.loads(pickle.dumps(mapping, protocol))) == {}
    assert dict(copy.copy(mapping)) == {}


def test_public_classes_are_known_here() -> None:
    """Every public class is refused above, or is made of values."""
    values = {"BusyPoll", "Event", "LoopStats", "Stats", "error", "epoll"}
    classes = {
        name
        for module in (pyepoll, raw, aio)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    }
    assert classes - values == set(MAKE)
