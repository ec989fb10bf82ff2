"""Registrations can be inspected, and each holds its data exactly as long as it is registered."""

import copy
import gc
import os
import pickle
import re
import socket
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from support.fds import Pipe
from support.kernel import IMPLIED, agree, fdinfo
from support.threads import until

import pyepoll
from pyepoll import Event

Epoll = pyepoll.Epoll[Any]
Eventfd = Callable[..., int]


class Data:
    """A connection: an object that can be weakly referenced."""

    def __repr__(self) -> str:  # for the ids of tests
        return "Data()"


class File:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


# Length, membership, the mapping.


def test_len_and_in_follow_the_registrations(ep: Epoll, pipe: Pipe) -> None:
    assert len(ep) == 0
    assert bool(ep) is True
    ep.register(pipe.read)
    ep.register(File(pipe.write), Event.OUT)
    assert len(ep) == 2
    for fd in (pipe.read, pipe.write):
        assert fd in ep
        assert File(fd) in ep
    ep.unregister(File(pipe.read))
    assert len(ep) == 1
    assert pipe.read not in ep
    assert 2**31 - 1 not in ep
    ep.close()
    assert len(ep) == 0
    assert bool(ep) is True


@pytest.mark.parametrize(
    ("wrong", "error"), [("1", TypeError), (None, TypeError), (1.0, TypeError), (-1, ValueError)]
)
def test_in_accepts_the_arguments_of_register(ep: Epoll, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        wrong in ep  # noqa: B015


def test_mapping_is_a_mapping(ep: Epoll, pipe: Pipe) -> None:
    view = ep.registrations
    assert isinstance(view, Mapping)
    assert isinstance(view, pyepoll.Registrations)
    assert dict(view) == {}
    data = Data()
    ep.register(pipe.write, Event.OUT | Event.ET, data)
    ep.register(pipe.read, Event.IN)
    expected = {pipe.read: (Event.IN, pipe.read), pipe.write: (Event.OUT | Event.ET, data)}
    assert dict(view) == view == expected
    assert list(view) == sorted(expected), "in the order of the fds"
    assert len(view) == 2
    assert view[pipe.write][1] is data
    assert type(view[pipe.read][0]) is Event
    assert view.keys() == expected.keys()
    assert sorted(events for events, _ in view.values()) == sorted(events for events, _ in expected.values())
    assert view.get(2**31 - 1) is None
    assert str(pipe.read) in repr(view)


@pytest.mark.parametrize("key", [-1, 2**31, 2**100, "1", None, 1.5, ()], ids=repr)
def test_mapping_lacks_objects_that_cannot_be_registered(ep: Epoll, key: Any) -> None:
    assert key not in ep.registrations
    assert ep.registrations.get(key) is None
    with pytest.raises(KeyError):
        ep.registrations[key]


def test_mapping_takes_objects_with_fileno(ep: Epoll, pipe: Pipe) -> None:
    """As ``in ep`` does."""
    one, other = socket.socketpair()
    with one, other:
        ep.register(one, Event.IN, "one")
        view = ep.registrations
        assert one in view
        assert other not in view
        assert view[one] == view[one.fileno()] == view.get(one) == (Event.IN, "one")
        assert view.get(other) is None
        assert view.get(other, "default") == "default"
        with pytest.raises(KeyError):
            view[other]


def test_mapping_says_when_an_object_is_closed(ep: Epoll) -> None:
    one, other = socket.socketpair()
    ep.register(one, Event.IN)
    one.close()
    other.close()
    lookups: list[Callable[[Any], object]] = [
        ep.registrations.__getitem__,
        ep.registrations.__contains__,
        ep.registrations.get,
    ]
    for lookup in lookups:
        with pytest.raises(ValueError, match="socket object is closed"):
            lookup(one)


def test_mapping_raises_the_exception_of_fileno(ep: Epoll) -> None:
    class Broken:
        def fileno(self) -> int:
            raise ZeroDivisionError

    class Odd:
        @property
        def fileno(self) -> int:
            raise ZeroDivisionError

    for broken in Broken(), Odd():
        with pytest.raises(ZeroDivisionError):
            cast(Any, broken) in ep.registrations  # noqa: B015
        with pytest.raises(ZeroDivisionError):
            ep.registrations[cast(Any, broken)]


@pytest.mark.parametrize("view", ["items", "values"])
def test_views_survive_unregister_in_their_loop(ep: Epoll, eventfd: Eventfd, view: str) -> None:
    fds = [eventfd() for _ in range(4)]
    for fd in fds:
        ep.register(fd, Event.IN)
    seen = []
    for each in getattr(ep.registrations, view)():
        seen.append(each)
        for fd in fds[1:3]:
            if fd in ep:
                ep.unregister(fd)
        ep.modify(fds[3], Event.OUT, "changed")
    left = [(fds[0], (Event.IN, fds[0])), (fds[3], (Event.OUT, "changed"))]
    assert seen == (left if view == "items" else [registration for _, registration in left])


def test_views_survive_other_threads(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd() for _ in range(50)]
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for fd in fds:
                ep.register(fd, Event.IN)
            for fd in fds:
                ep.unregister(fd)

    view = ep.registrations
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            full = 0
            until(lambda: len(ep) > 0)
            for _ in range(2000):
                pairs = dict(view.items())
                full += len(pairs) > 0
                assert all(pair == (Event.IN, fd) for fd, pair in pairs.items())
                assert all(pair[0] == Event.IN for pair in view.values())
                assert (Event.OUT, "nothing") not in view.values()
                assert view != cast(Any, {"never": 1})
                repr(view)
        finally:
            done.set()
        changing.result()
    assert full


def test_values_support_in(ep: Epoll, pipe: Pipe) -> None:
    ep.register(pipe.read, Event.IN, nan := float("nan"))
    assert (Event.IN, nan) in ep.registrations.values()
    assert (pipe.read, (Event.IN, nan)) in ep.registrations.items()
    assert (pipe.write, (Event.IN, nan)) not in ep.registrations.items()
    assert (Event.OUT, nan) not in ep.registrations.values()


def test_mapping_is_live(ep: Epoll, pipe: Pipe) -> None:
    view = ep.registrations
    ep.register(pipe.read, Event.IN)
    assert view == {pipe.read: (Event.IN, pipe.read)}
    ep.modify(pipe.read, Event.OUT)
    assert view == {pipe.read: (Event.OUT, pipe.read)}
    ep.modify(pipe.read, Event.IN, "data")
    assert view == {pipe.read: (Event.IN, "data")}
    ep.unregister(pipe.read)
    assert view == {}
    ep.register(pipe.read, 0)
    ep.close()
    assert view == {}


def test_mapping_may_change_while_it_is_iterated(ep: Epoll, eventfd: Eventfd) -> None:
    fds = [eventfd() for _ in range(4)]
    for fd in fds:
        ep.register(fd, Event.IN)
    for fd in ep.registrations:
        ep.unregister(fd)
    assert len(ep) == 0
    assert fdinfo(ep) == {}


def test_mapping_is_read_only(ep: Epoll, pipe: Pipe) -> None:
    ep.register(pipe.read)
    view: Any = ep.registrations
    with pytest.raises(TypeError):
        view[pipe.read] = (Event.IN, 1)
    with pytest.raises(TypeError):
        del view[pipe.read]
    with pytest.raises(AttributeError):
        view.clear()
    with pytest.raises(AttributeError):
        cast(Any, ep).registrations = {}
    assert agree(ep)


@pytest.mark.parametrize(
    "mask", [Event.IN, Event(0), Event.IN | Event.OUT | Event.ET | Event.ONESHOT], ids=str
)
def test_object_and_kernel_agree(ep: Epoll, make_pipe: Callable[[], Pipe], mask: Event) -> None:
    pipes = [make_pipe() for _ in range(3)]
    for pipe in pipes:
        ep.register(pipe.read, mask)
        assert agree(ep)
    ep.modify(pipes[1].read, Event.OUT)
    assert agree(ep)
    ep.unregister(pipes[0].read)
    assert agree(ep)
    ep.rearm(pipes[2].read)
    assert fdinfo(ep).keys() == {pipes[1].read, pipes[2].read}
    assert fdinfo(ep)[pipes[2].read][0] == mask | IMPLIED


# Data.


def delivered(ep: Epoll) -> list[Any]:
    """The data of the ready events, by every way to get it."""
    ((polled, _),) = ep.poll(0)
    ((waited, _),) = ep.wait(0)
    iterated, _ = next(iter(ep))
    return [polled, waited, iterated]


@pytest.mark.parametrize(
    "data",
    [Data(), None, "text", 0, -1, 2**100, (), [], {}, Ellipsis, NotImplemented, float("nan"), Data],
    ids=repr,
)
@pytest.mark.parametrize("how", ["positional", "named"])
def test_data_is_returned_unchanged(ep: Epoll, eventfd: Eventfd, data: object, how: str) -> None:
    fd = eventfd(1)
    if how == "named":
        ep.register(fd, Event.IN, data=data)
    else:
        ep.register(fd, Event.IN, data)
    for _ in range(2):
        assert all(got is data for got in delivered(ep))
    assert ep.registrations[fd][1] is data


def test_data_defaults_to_the_fd(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(File(fd), Event.IN)
    for got in delivered(ep):
        assert type(got) is int
        assert got == fd


def test_the_default_data_of_an_int_subclass_is_an_int(ep: Epoll, eventfd: Eventfd) -> None:
    class Fd(int):
        pass

    ep.register(Fd(eventfd(1)), Event.IN)
    assert {type(got) for got in delivered(ep)} == {int}


def test_modify_keeps_or_replaces_the_data(ep: Epoll, eventfd: Eventfd) -> None:
    fd, first, second = eventfd(1), Data(), Data()
    ep.register(fd, Event.IN, first)
    assert all(got is first for got in delivered(ep))
    ep.modify(fd, Event.IN | Event.OUT)
    assert all(got is first for got in delivered(ep))
    ep.modify(fd, Event.IN, second)
    assert all(got is second for got in delivered(ep))
    ep.modify(fd, Event.IN, data=None)
    assert all(got is None for got in delivered(ep))
    ep.rearm(fd)
    assert all(got is None for got in delivered(ep))


def test_the_pair_is_shared_while_the_mask_is_the_same(ep: Epoll, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    ep.register(fd, Event.IN | Event.OUT, data=Data())
    (first,) = ep.poll(0)
    (second,) = ep.wait(0)
    assert first is second is next(iter(ep))
    assert type(first) is tuple
    ep.modify(fd, Event.IN)
    (third,) = ep.poll(0)
    assert third == (first[0], Event.IN)
    assert first == (third[0], Event.IN | Event.OUT), "a pair that was handed out does not change"


# References.

LeaveBy = Callable[[Epoll, Pipe], object]


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize(
    "leave",
    [
        lambda ep, pipe: ep.unregister(pipe.read),
        lambda ep, pipe: ep.modify(pipe.read, Event.IN, data=None),
        lambda ep, pipe: ep.close(),
        lambda ep, pipe: ep.__exit__(None, None, None),
        lambda ep, pipe: ep.__init__(),
    ],
    ids=["unregister", "modify", "close", "exit", "init does not"],
)
def test_data_is_released_with_its_registration(
    ep: Epoll, pipe: Pipe, leave: LeaveBy, reported: bool, request: Any
) -> None:
    data = Data()
    gone = weakref.ref(data)
    count = sys.getrefcount(data)
    ep.register(pipe.read, Event.IN, data)
    assert sys.getrefcount(data) == count + 1, "one reference"
    if reported:
        os.write(pipe.write, b"x")
        assert ep.poll(0) == [(data, Event.IN)]
    del data
    gc.collect()
    assert gone() is not None
    leave(ep, pipe)
    if "does not" in request.node.callspec.id:
        assert gone() is not None
    else:
        gc.collect()
        assert gone() is None


def test_data_is_released_when_the_fd_is_registered_again(ep: Epoll) -> None:
    pipe, other, data = Pipe(), Pipe(), Data()
    gone = weakref.ref(data)
    ep.register(pipe.read, Event.IN, data)
    del data
    fd = pipe.read
    pipe.close(fd)
    os.dup2(other.read, fd)
    gc.collect()
    assert gone() is not None
    ep.register(fd, Event.IN)
    gc.collect()
    assert gone() is None
    os.close(fd)
    pipe.close()
    other.close()


@pytest.mark.parametrize("method", ["modify", "unregister"])
def test_data_of_a_closed_fd_is_released_when_it_is_modified(ep: Epoll, method: str) -> None:
    pipe, data = Pipe(), Data()
    gone = weakref.ref(data)
    ep.register(pipe.read, Event.IN, data)
    del data
    fd = pipe.read
    pipe.close()
    with pytest.raises(OSError):
        getattr(ep, method)(*(fd, Event.IN)[: 2 if method == "modify" else 1])
    gc.collect()
    assert gone() is None


def test_a_refused_registration_holds_no_data(ep: Epoll, pipe: Pipe, closed_fd: int) -> None:
    data = Data()
    gone = weakref.ref(data)
    ep.register(pipe.read, Event.IN)
    for call, fd, mask in (
        (ep.register, closed_fd, Event.IN),
        (ep.register, pipe.read, Event.IN),
        (ep.register, pipe.read, 1 << 27),
        (ep.modify, pipe.write, Event.IN),
        (ep.modify, pipe.read, Event.IN | Event.EXCLUSIVE),
    ):
        with pytest.raises((OSError, ValueError)):
            call(fd, mask, data)
    assert ep.registrations == {pipe.read: (Event.IN, pipe.read)}
    del data
    gc.collect()
    assert gone() is None


def test_collection_releases_the_data(pipe: Pipe) -> None:
    ep: Epoll = pyepoll.Epoll()
    data = Data()
    gone = weakref.ref(data)
    ep.register(pipe.read, Event.IN, data)
    del ep, data
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "through", [lambda ep: ep, lambda ep: [ep], lambda ep: ep.poll, lambda ep: ep.registrations]
)
@pytest.mark.parametrize("reported", [False, True])
def test_cycles_through_data_are_collected(
    pipe: Pipe, through: Callable[[Epoll], object], reported: bool
) -> None:
    ep: Epoll = pyepoll.Epoll()
    number = ep.fileno()
    gone = weakref.ref(ep)
    ep.register(pipe.read, Event.IN, through(ep))
    if reported:
        os.write(pipe.write, b"x")
        assert len(ep.poll(0)) == 1
    del ep
    gc.collect()
    assert gone() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_cycles_through_an_iterator_are_collected(eventfd: Eventfd) -> None:
    ep: Epoll = pyepoll.Epoll()
    gone = weakref.ref(ep)
    holder = Data()
    for fd in (eventfd(1), eventfd(1)):
        ep.register(fd, Event.IN, holder)
    events = [ep.wait(0), iter(ep)]
    assert next(events[0]) == next(events[1])
    cast(Any, holder).events = events
    del ep, holder, events
    gc.collect()
    assert gone() is None


def test_many_rounds_leak_no_memory(ep: Epoll, pipe: Pipe) -> None:
    data = Data()
    os.write(pipe.write, b"x")
    count = sys.getrefcount(data)
    for _ in range(50):
        ep.register(pipe.read, Event.IN, data)
        assert delivered(ep) == [data] * 3
        ep.modify(pipe.read, Event.IN | Event.OUT)
        ep.modify(pipe.read, Event.IN, data)
        ep.rearm(pipe.read)
        ep.unregister(pipe.read)
    assert sys.getrefcount(data) == count


def test_a_finalizer_of_data_may_use_the_epoll(ep: Epoll, pipe: Pipe) -> None:
    """Data is released after the locks: its finalizer may use the same epoll."""
    seen: list[int] = []

    class Nosy:
        def __del__(self) -> None:
            seen.append(len(ep))
            if not ep.closed:
                ep.poll(0)
                ep.register(pipe.write, Event.OUT)
                ep.unregister(pipe.write)

    ep.register(pipe.read, Event.IN, Nosy())
    ep.modify(pipe.read, Event.IN, Nosy())
    ep.unregister(pipe.read)
    ep.register(pipe.read, Event.IN, Nosy())
    ep.close()
    gc.collect()
    assert seen == [1, 0, 0]


# The object.


def test_an_epoll_can_be_weakly_referenced(pipe: Pipe) -> None:
    ep: Epoll = pyepoll.Epoll()
    called: list[object] = []
    ref = weakref.ref(ep, called.append)
    assert ref() is ep
    assert weakref.WeakSet([ep])
    del ep
    gc.collect()
    assert ref() is None
    assert called == [ref]


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda ep, n=n: pickle.dumps(ep, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_an_epoll_cannot_be_copied_or_pickled(ep: Epoll, duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="Epoll"):
        duplicate(ep)


def test_repr_shows_fd_and_count(ep: Epoll, pipe: Pipe) -> None:
    assert repr(ep) == f"<pyepoll.Epoll fd={ep.fileno()} registered=0>"
    ep.register(pipe.read)
    assert repr(ep) == f"<pyepoll.Epoll fd={ep.fileno()} registered=1>"
    ep.close()
    assert repr(ep) == "<pyepoll.Epoll closed>"


def test_repr_does_not_raise_if_the_epoll_is_closed_meanwhile() -> None:
    class ClosedMeanwhile(pyepoll.Epoll[Any]):
        @property
        def closed(self) -> bool:
            was_closed = super().closed
            self.close()
            return was_closed

    assert repr(ClosedMeanwhile()).endswith("ClosedMeanwhile closed>")


def test_epoll_is_generic() -> None:
    alias: Any = pyepoll.Epoll[Data]
    assert isinstance(alias, types.GenericAlias)
    assert alias.__origin__ is pyepoll.Epoll
    assert alias.__args__ == (Data,)
    with pyepoll.Epoll[Data]() as ep:
        assert type(ep) is pyepoll.Epoll

    class Sub(pyepoll.Epoll[Data]):
        pass

    with Sub() as sub:
        assert isinstance(sub, pyepoll.Epoll)


@pytest.fixture
def mine() -> Iterator[Any]:
    class Mine(pyepoll.Epoll[Any]):
        def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
            self.polls = 0

        def poll(self, *args: Any, **kwargs: Any) -> list[tuple[Any, Event]]:
            self.polls += 1
            return super().poll(*args, **kwargs)

    with Mine(flags=0) as ep:
        yield ep


def test_a_subclass_keeps_its_methods_and_attributes(mine: Any, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    mine.register(fd, Event.IN, data="data")
    assert mine.poll(0, maxevents=1) == [("data", Event.IN)]
    assert mine.polls == 1
    assert re.match(r"<\w+\.\S+Mine fd=\d+ registered=1>", repr(mine))
    mine.itself = mine
    with type(mine).fromfd(os.dup(mine.fileno())) as other:
        assert type(other) is type(mine)


def test_subclass_is_collected_with_its_dict(pipe: Pipe) -> None:
    class Mine(pyepoll.Epoll[Any]):
        pass

    class Plain:
        pass

    ep: Any = Mine()
    ep.itself = ep
    ep.register(pipe.read, Event.IN, data=Mine)
    gone, kind, plain = weakref.ref(ep), weakref.ref(Mine), weakref.ref(Plain)
    del ep, Mine, Plain
    gc.collect()
    assert gone() is None
    # A free-threaded 3.13 makes every class immortal once there was a second thread.
    assert (kind() is None) is (plain() is None)
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert kind() is None


def test_an_unclosed_epoll_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    pyepoll.Epoll()
    gc.collect()
    assert list(recwarn) == []
