"""The parameters of public methods: those of asyncio's loop, handles and transports, and of selectors."""

import asyncio
import asyncio.selector_events
import asyncio.unix_events
import inspect
import os
import selectors
from typing import Any

import pytest

from pyepoll import _pipes, aio

_selector_events: Any = asyncio.selector_events
_unix_events: Any = asyncio.unix_events

PAIRS: dict[str, tuple[Any, Any]] = {
    "loop": (aio.EventLoop, asyncio.SelectorEventLoop),
    "handle": (aio._aio.Handle, asyncio.Handle),
    "timer": (aio._aio.TimerHandle, asyncio.TimerHandle),
    "stream": (aio.SocketTransport, _selector_events._SelectorSocketTransport),
    "datagrams": (aio.DatagramTransport, _selector_events._SelectorDatagramTransport),
    "pipe to read from": (_pipes.ReadPipeTransport, _unix_events._UnixReadPipeTransport),
    "pipe to write to": (_pipes.WritePipeTransport, _unix_events._UnixWritePipeTransport),
    "selector": (aio.LoopSelector, selectors.EpollSelector),
}


def public_methods(type: Any) -> list[str]:
    return [name for name in dir(type) if not name.startswith("_") and callable(getattr(type, name))]


METHODS = [(what, name) for what, (_, stock) in PAIRS.items() for name in public_methods(stock)]


def parameters(method: Any) -> list[tuple[str, object, object]]:
    """All but self, which a method in C does not take by name."""
    found = list(inspect.signature(method).parameters.values())
    assert found[0].name == "self"
    return [(found.name, found.kind, found.default) for found in found[1:]]


@pytest.mark.parametrize(("what", "name"), METHODS)
def test_methods_have_the_parameters_of_asyncio(what: str, name: str) -> None:
    ours, theirs = (getattr(type, name) for type in PAIRS[what])
    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("what", PAIRS)
def test_signatures_have_no_private_names(what: str) -> None:
    ours, _ = PAIRS[what]
    named = [found for name in public_methods(ours) for found, _, _ in parameters(getattr(ours, name))]
    assert not [found for found in named if found.startswith("_")]


def test_the_selector_takes_its_arguments_by_name() -> None:
    reading, writing = os.pipe()
    try:
        with aio.LoopSelector() as selector:
            registered = selector.register(fileobj=reading, events=selectors.EVENT_READ, data=None)
            assert selector.unregister(fileobj=reading) == registered
            with pytest.raises(TypeError):
                selector.unregister()  # type: ignore[call-arg]
    finally:
        os.close(reading)
        os.close(writing)
