"""The operations of debuggers, mocks and error reporters never raise, in any state of an object."""

import asyncio
import inspect
import os
import socket
import sys
import sysconfig
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.kernel import instance_fd

import pyepoll
from pyepoll import Event, aio, doctor, raw

MODULES = {module.__name__: module for module in (pyepoll, raw, aio, doctor)}
CLASSES = {
    f"{name}.{each}": getattr(module, each)
    for name, module in MODULES.items()
    for each in module.__all__
    if isinstance(getattr(module, each), type)
}
HAVE_STATES = [pyepoll.Epoll, pyepoll.EpollSelector, pyepoll.Waker, pyepoll.Timer]


def look(thing: Any) -> None:
    """All operations that a tool applies to an unknown object."""
    repr(thing), str(thing), dir(thing), inspect.getdoc(thing), callable(thing)
    for name in dir(thing):
        hasattr(thing, name)
        getattr(thing, name, None)
        inspect.getattr_static(thing, name)
    inspect.getmembers(thing)
    inspect.getmembers_static(thing)
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
        return  # Once a thread has been started, that build never frees a class, and each mock has its own.
    for mock in unittest.mock.Mock, unittest.mock.MagicMock, unittest.mock.NonCallableMagicMock:
        mock(spec=thing)
        mock(spec_set=thing)
    unittest.mock.create_autospec(thing)
    unittest.mock.create_autospec(thing, spec_set=True)


@pytest.mark.parametrize("name", [*MODULES, *CLASSES])
def test_inspecting_modules_and_classes_never_raises(name: str) -> None:
    look((MODULES | CLASSES)[name])


def opened() -> Iterator[Any]:
    with pyepoll.Epoll() as ep, pyepoll.Waker() as waker, pyepoll.EpollSelector() as selector:
        ep.register(waker, Event.IN)
        selector.register(waker, 1)
        waker.wake()
        view = ep.registrations
        with pyepoll.Timer(1, 2) as timer, pyepoll.Signals(40, 50) as signals:
            with pyepoll.Child(os.getpid()) as child:
                yield from (timer, signals, child)
        yield from (ep, waker, selector, selector.get_map(), selector.get_key(waker))
        yield from (view, view.keys(), view.items(), view.values(), view[waker][0])
        yield from (iter(ep), ep.wait(0), ep.stats(), raw.EventBuffer(2))


def closed() -> Iterator[Any]:
    ep, waker, selector = pyepoll.Epoll(), pyepoll.Waker(), pyepoll.EpollSelector()
    things = [ep, waker, selector, selector.get_map(), ep.registrations, iter(ep), ep.wait(0)]
    ours: list[Any] = [pyepoll.Timer(), pyepoll.Signals(40), pyepoll.Child(os.getpid())]
    for each in ep, waker, selector, *ours:
        each.close()
    yield from (*things, *ours)
    yield ep.registrations


def closed_through_another_object() -> Iterator[Any]:
    ep = pyepoll.Epoll()
    pyepoll.Epoll.fromfd(ep.fileno()).close()
    yield from (ep, ep.registrations)
    ep.close()


def closed_behind_its_back() -> Iterator[Any]:
    ep = pyepoll.Epoll()
    os.close(instance_fd(ep))
    yield from (ep, ep.registrations)
    with pytest.raises(OSError):
        ep.close()
    ours: list[Any] = [pyepoll.Timer(), pyepoll.Signals(40), pyepoll.Child(os.getpid())]
    for each in ours:
        os.close(each.fileno())
        yield each
        with pytest.raises(OSError):
            each.close()


def object_of(kind: Any) -> Any:
    return kind.__new__(kind)


def made_by_new_alone() -> Iterator[Any]:
    for kind in [*HAVE_STATES, aio.EventLoop, aio.SocketTransport]:
        made = object_of(kind)
        yield made
        if isinstance(made, pyepoll.Epoll | pyepoll.Waker | pyepoll.Timer):
            made.close()


def events() -> Iterator[Any]:
    yield from (Event.IN, Event(0), Event.IN | Event.ET, Event(1 << 20), pyepoll.BusyPoll(0))


def reports() -> Iterator[Any]:
    report = doctor.check()
    yield from (report, doctor.Report(()), report.findings[0])


@pytest.mark.parametrize(
    "things",
    [
        opened,
        closed,
        closed_through_another_object,
        closed_behind_its_back,
        made_by_new_alone,
        events,
        reports,
    ],
    ids=lambda things: things.__name__,
)
def test_inspecting_objects_never_raises(things: Callable[[], Iterator[Any]]) -> None:
    for thing in things():
        look(thing)


def test_registrations_cannot_be_made_without_an_epoll() -> None:
    kind: Any = pyepoll.Registrations
    for make in kind, lambda: kind(None), lambda: kind.__new__(kind):
        with pytest.raises(TypeError):
            make()


def test_inspecting_procfs_objects_never_raises() -> None:
    procfs: Any = pytest.importorskip("pyepoll.procfs", exc_type=ImportError)
    look(procfs)
    for name in procfs.__all__:
        look(getattr(procfs, name))
    with pyepoll.Epoll() as ep, pyepoll.Waker() as waker:
        ep.register(waker)
        process = procfs.process(os.getpid())
        look(process)
        for epoll in process.epolls:
            look(epoll)
            look(epoll.watched[0])


def test_inspecting_loops_never_raises() -> None:
    loop = aio.new_event_loop()
    look(loop)
    loop.close()
    look(loop)


def test_inspecting_transports_never_raises() -> None:
    async def main() -> None:
        one, other = socket.socketpair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=one)
        assert isinstance(transport, aio.SocketTransport)
        look(loop)
        look(transport)
        transport.close()
        look(transport)
        await asyncio.sleep(0)
        look(transport)
        other.close()

    aio.run(main())


def test_repr_of_an_epoll_does_not_use_its_data() -> None:
    """repr() of the mapping is that of a dict: it raises if that of the data does; the Epoll shows none."""

    class Broken:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    with pyepoll.Epoll() as ep, pyepoll.Waker() as waker:
        ep.register(waker, Event.IN, Broken())
        assert "registered=1" in repr(ep)
        with pytest.raises(ZeroDivisionError):
            repr(ep.registrations)
