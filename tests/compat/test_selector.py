"""EpollSelector behaves as selectors.EpollSelector; stock is expected to fail where it does better."""

import asyncio
import contextlib
import copy
import errno
import fractions
import gc
import math
import os
import pickle
import random
import select
import selectors
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import Any
from unittest import mock

import pytest
from support.effort import Effort
from support.fds import Pipe
from support.kernel import IMPLIED, agree, fdinfo
from support.processes import in_child, run
from support.threads import together, until, waiters

import pyepoll
from pyepoll import EpollSelector, Event, _epoll

BOTH = EVENT_READ | EVENT_WRITE
Eventfd = Callable[..., int]
MakePipe = Callable[[], Pipe]
Pair = tuple[socket.socket, socket.socket]


def unlike_stock(reason: str, raises: Any = AssertionError) -> pytest.MarkDecorator:
    """Run with ours, and with stock's, which fails in this way."""
    stock = pytest.param(
        selectors.EpollSelector, id="stock", marks=pytest.mark.xfail(raises=raises, reason=reason)
    )
    return pytest.mark.parametrize("make", [pytest.param(EpollSelector, id="ours"), stock])


like_stock = pytest.mark.parametrize("make", [EpollSelector, selectors.EpollSelector], ids=["ours", "stock"])


@pytest.fixture
def sel(pool: ThreadPoolExecutor) -> Iterator[EpollSelector]:
    # Closed before the pool is, which ends the waits that a failed test leaves in its threads.
    with EpollSelector() as sel:
        yield sel


def core_of(sel: EpollSelector) -> pyepoll.Epoll[Any]:
    core: pyepoll.Epoll[Any] = sel._selector
    return core


def is_whole(sel: EpollSelector) -> bool:
    """Whether the keys are the registrations, and these are the kernel's."""
    core = core_of(sel)
    keys = {fd: data for fd, (_, data) in core.registrations.items()}
    return keys == sel._fd_to_key and agree(core)


# The behaviour of stock.


def outcome(call: Callable[[], object]) -> object:
    """The result of a call, or its exception; of a KeyError, its text."""
    try:
        result = call()
    except Exception as error:
        return type(error), str(error) if isinstance(error, KeyError) else ""
    return sorted(result, key=lambda pair: pair[0].fd) if isinstance(result, list) else result


class Files:
    """A few files that an action may change."""

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.a, self.b = socket.socketpair()
        self.all: list[Any] = [self.pipe.read, self.pipe.write, self.a, self.b]
        self.a.setblocking(False)
        self.b.setblocking(False)

    def disturb(self, choose: random.Random) -> None:
        changes: list[Callable[[], object]] = [
            lambda: os.write(self.pipe.write, b"x"),
            lambda: os.read(self.pipe.read, 10),
            lambda: self.a.send(b"x"),
            lambda: self.b.recv(10),
            lambda: self.b.shutdown(socket.SHUT_WR),
            self.pipe.fill,
        ]
        with contextlib.suppress(OSError):
            choose.choice(changes)()

    def close(self) -> None:
        self.a.close()
        self.b.close()
        self.pipe.close()


def step(choose: random.Random, files: Files) -> Callable[[Any], object]:
    """A call on a selector, but for unknown events in modify: stock takes them."""
    strange = choose.random() < 0.1
    file = choose.choice([-1, "file", None, 10**6, 10**20] if strange else files.all)
    known, unknown = [EVENT_READ, EVENT_WRITE, BOTH], [0, 4, 999, None]
    events: Any = choose.choice(unknown if choose.random() < 0.05 else known)
    asked: Any = choose.choice([0, *known])
    data = choose.choice([None, "data", 1, ("a", 2)])
    timeout = choose.choice([0, -1, -0.5])
    calls: list[Callable[[Any], object]] = [
        lambda sel: sel.register(file, events, data),
        lambda sel: sel.register(file, events),
        lambda sel: sel.modify(file, asked, data),
        lambda sel: sel.modify(file, asked),
        lambda sel: sel.unregister(file),
        lambda sel: sel.get_key(file),
        lambda sel: (dict(sel.get_map()), len(sel.get_map()), file in sel.get_map()),
        lambda sel: sel.select(timeout),
        lambda sel: sel.select(timeout=timeout),
    ]
    return choose.choice(calls)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_ends_as_with_stock(seed: int, effort: Effort) -> None:
    choose = random.Random(seed)
    for _ in range(effort(20, 200)):
        with (
            contextlib.closing(Files()) as files,
            EpollSelector() as ours,
            selectors.EpollSelector() as stock,
        ):
            for _ in range(60):
                files.disturb(choose)
                call = step(choose, files)
                assert outcome(partial(call, ours)) == outcome(partial(call, stock))
            assert is_whole(ours)


@unlike_stock("dictionary changed size during iteration", RuntimeError)
@pytest.mark.parametrize("view", ["keys", "values", "items"])
def test_map_can_change_during_a_loop_over_it(make: Any, view: str, make_pipe: MakePipe) -> None:
    pipes = [make_pipe() for _ in range(3)]
    with make() as sel:
        for pipe in pipes:
            sel.register(pipe.read, EVENT_READ)
        seen = []
        for each in getattr(sel.get_map(), view)():
            seen.append(each)
            if len(seen) == 1:
                sel.unregister(pipes[1].read)
                sel.register(pipes[0].write, EVENT_WRITE)
                sel.register(pipes[1].write, EVENT_WRITE)
        assert len(seen) == 3
        assert list(getattr(sel.get_map(), view)()) != seen


@like_stock
def test_private_attributes_used_by_others_exist(make: Any, pipe: Pipe) -> None:
    with make() as sel:
        assert issubclass(make, selectors.BaseSelector)
        assert type(sel).__name__ == "EpollSelector"
        assert len(sel._map) == 0
        key = sel.register(pipe.write, EVENT_WRITE, "data")
        assert type(key) is SelectorKey
        assert key == (pipe.write, pipe.write, EVENT_WRITE, "data")
        assert hash(key) == hash(tuple(key))
        assert pickle.loads(pickle.dumps(key)) == key
        assert (sel.get_map()[pipe.write], sel.get_map().get(pipe.write)) == (key, key)
        assert sel.get_map().get(pipe.read, 7) == 7
        assert list(sel.get_map()) == [pipe.write]
        ((got, events),) = sel.select()
        assert got is key
        assert type(events) is int
        assert len(sel._map) == 1
        assert sel.fileno() == sel._selector.fileno()
        mapping = sel.get_map()
    assert not sel.get_map()
    assert list(mapping.items()) == []
    sel.close()
    with pytest.raises(RuntimeError, match="Selector is closed"):
        sel.get_key(pipe.write)
    with pytest.raises(ValueError, match="closed"):
        sel.register(pipe.write, EVENT_WRITE)
    with pytest.raises(ValueError, match="closed"):
        sel.select(0)
    for call in sel.unregister, lambda fd: sel.modify(fd, EVENT_READ):
        with pytest.raises(KeyError, match="is not registered"):
            call(pipe.write)


@like_stock
def test_a_closed_file_object_is_found(make: Any) -> None:
    a, b = socket.socketpair()
    with make() as sel:
        key = sel.register(a, EVENT_READ)
        sel.register(b, EVENT_READ)
        a.close()
        b.close()
        assert sel.get_key(a) == key
        assert a in sel.get_map()
        assert sel.unregister(a) == key
        with pytest.raises(ValueError, match="Invalid file"):
            sel.unregister(a)
        with pytest.raises(OSError, match="."):
            sel.modify(b, EVENT_WRITE)
        with pytest.raises(ValueError, match="Invalid file"):
            sel.unregister(b)
        with pytest.raises(ValueError, match="Invalid file"):
            sel.register(b, EVENT_READ)
        assert len(sel.get_map()) == 0


@like_stock
def test_modify_accepts_an_empty_mask(make: Any, pipe: Pipe) -> None:
    """modify takes it, and leaves the bits that the kernel always adds."""
    with make() as sel:
        sel.register(pipe.read, EVENT_READ)
        os.write(pipe.write, b"x")
        key = sel.modify(pipe.read, 0)
        assert sel.select(0) == []
        pipe.close(pipe.write)
        assert sel.select(0) == [(key, 0)]


@like_stock
def test_asyncio_runs_on_it(make: Any) -> None:
    async def main() -> list[bytes]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        async def ask(message: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(message)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            messages = [b"%d" % i * 50_000 for i in range(10)]
            assert await asyncio.gather(*map(ask, messages)) == messages
            await asyncio.to_thread(time.sleep, 0)
            return messages

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(make())) as runner:
        assert len(runner.run(main())) == 10


# Time.


@pytest.fixture(params=[True, False], ids=["pwait2", "fallback"])
def syscall(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _epoll.use_pwait2(request.param)
    yield
    _epoll.use_pwait2(before)


@pytest.mark.usefixtures("syscall")
@pytest.mark.parametrize("timeout", [1e-9, 0.0002, 0.0105, 5e-324, fractions.Fraction(1, 300)])
def test_select_never_returns_early(sel: EpollSelector, timeout: float) -> None:
    before = core_of(sel).stats().waits
    start = time.monotonic()
    assert sel.select(timeout) == []
    assert time.monotonic() - start >= timeout
    assert core_of(sel).stats().waits - before <= 3, "it sleeps, and does not poll until the time has come"


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -1.0, -0.5, -7, -math.inf, False, -(10**30)])
def test_zero_and_negative_timeouts_do_not_wait(sel: EpollSelector, eventfd: Eventfd, timeout: float) -> None:
    key = sel.register(eventfd(1), EVENT_READ)
    sel.register(eventfd(0), EVENT_READ)
    assert sel.select(timeout) == [(key, EVENT_READ)]
    sel.unregister(key.fd)
    assert sel.select(timeout) == []


@pytest.mark.parametrize("arguments", [(), (None,), (math.inf,), (10**30,), (1e300,)])
def test_no_timeout_waits_until_an_event(
    sel: EpollSelector, eventfd: Eventfd, pool: ThreadPoolExecutor, arguments: tuple[Any, ...]
) -> None:
    key = sel.register(eventfd(0), EVENT_READ)
    wait = pool.submit(sel.select, *arguments)
    until(lambda: waiters() == 1)
    os.eventfd_write(key.fd, 1)
    assert wait.result(10) == [(key, EVENT_READ)]


def test_an_invalid_timeout_is_refused(sel: EpollSelector) -> None:
    with pytest.raises(ValueError, match="nan"):
        sel.select(math.nan)
    wrong: Any
    for wrong in "1", b"", [], 1j:
        with pytest.raises(TypeError, match="number of seconds"):
            sel.select(wrong)


# More of epoll's bits.


def mask_of(sel: EpollSelector, fd: int) -> int:
    return fdinfo(sel)[fd][0] & ~IMPLIED


def test_flags_stay_until_others_are_given(sel: EpollSelector, eventfd: Eventfd) -> None:
    fd = eventfd(0)
    sel.register(fd, EVENT_READ, flags=Event.RDHUP | Event.PRI)
    assert mask_of(sel, fd) == Event.IN | Event.RDHUP | Event.PRI
    sel.modify(fd, EVENT_WRITE)
    assert mask_of(sel, fd) == Event.OUT | Event.RDHUP | Event.PRI
    sel.modify(fd, EVENT_WRITE, "data", flags=None)
    assert mask_of(sel, fd) == Event.OUT | Event.RDHUP | Event.PRI
    sel.modify(fd, EVENT_WRITE, "data", flags=Event.ET)
    assert mask_of(sel, fd) == Event.OUT | Event.ET
    sel.modify(fd, BOTH, flags=0)
    assert mask_of(sel, fd) == Event.IN | Event.OUT
    assert is_whole(sel)


@pytest.mark.parametrize("flags", [Event.IN, Event.OUT | Event.ET, 2**25, -1, 2**40])
def test_invalid_flags_are_refused(sel: EpollSelector, eventfd: Eventfd, flags: int) -> None:
    fd = eventfd(0)
    with pytest.raises(ValueError, match="bits|IN or OUT"):
        sel.register(fd, EVENT_READ, flags=flags)
    key = sel.register(fd, EVENT_READ)
    with pytest.raises(ValueError, match="bits|IN or OUT"):
        sel.modify(fd, EVENT_WRITE, flags=flags)
    assert sel.get_key(fd) is key
    assert is_whole(sel)


def test_edge_triggered_reports_once_per_change(sel: EpollSelector, eventfd: Eventfd) -> None:
    """Once for each change, and for each modify."""
    fd = eventfd(1)
    key = sel.register(fd, EVENT_READ, "data", Event.ET)
    assert sel.select(0) == [(key, EVENT_READ)]
    assert sel.select(0) == []
    os.eventfd_write(fd, 1)
    assert sel.select(0) == [(key, EVENT_READ)]
    key = sel.modify(fd, EVENT_READ, "data")
    assert sel.select(0) == [(key, EVENT_READ)]
    assert sel.select(0) == []


def test_one_shot_reports_once_until_modified(sel: EpollSelector, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    key = sel.register(fd, EVENT_READ, "data", Event.ONESHOT)
    for _ in range(3):
        assert sel.select(0) == [(key, EVENT_READ)]
        os.eventfd_write(fd, 1)
        assert sel.select(0) == []
        key = sel.modify(fd, EVENT_READ, "data")


def test_exclusive_wakes_few_waiters(eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
    """One event does not wake all waiters: on Linux it wakes one."""
    fd = eventfd(0)
    selectors = [EpollSelector() for _ in range(8)]
    for each in selectors:
        each.register(fd, EVENT_READ, flags=Event.EXCLUSIVE)
    waits = [pool.submit(each.select) for each in selectors]
    until(lambda: waiters() == len(selectors))
    os.eventfd_write(fd, 1)
    until(lambda: any(wait.done() for wait in waits))
    time.sleep(0.05)
    assert sum(wait.done() for wait in waits) < len(selectors)
    for each in selectors:
        each.close()
    woken = [wait.result(10) for wait in waits if wait.exception(10) is None]
    assert all(events == EVENT_READ for ((_, events),) in woken)


def test_data_of_exclusive_can_change(sel: EpollSelector, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    sel.register(fd, EVENT_READ, "old", Event.EXCLUSIVE)
    assert sel.select(0)[0][0].data == "old"
    sel.modify(fd, EVENT_READ, "new")
    assert sel.select(0)[0][0].data == "new"


@pytest.mark.parametrize(
    ("asked", "reported"), [(EVENT_READ, EVENT_READ), (EVENT_WRITE, EVENT_WRITE), (BOTH, EVENT_READ)]
)
def test_out_of_band_data_is_reported(sel: EpollSelector, tcp_pair: Pair, asked: int, reported: int) -> None:
    """PRI is EVENT_READ; a key for EVENT_WRITE alone that asked for it gets EVENT_WRITE."""
    a, b = tcp_pair
    sel.register(a, asked, flags=Event.PRI | Event.ET)
    sel.select(0)
    b.send(b"!", socket.MSG_OOB)
    ((_, events),) = sel.select(10)
    assert events & reported
    # There is room to write as well.
    assert events in (asked, reported)


def test_the_end_of_the_stream_is_reported(sel: EpollSelector, socketpair: Pair) -> None:
    a, b = socketpair
    with contextlib.suppress(BlockingIOError):
        while True:
            a.send(bytes(65536))
    key = sel.register(a, EVENT_WRITE, flags=Event.RDHUP)
    assert sel.select(0) == []
    b.shutdown(socket.SHUT_WR)
    assert sel.select(10) == [(key, EVENT_WRITE)]


def test_modify_without_change_makes_no_system_call() -> None:
    """As a sandbox that forbids epoll_ctl shows."""
    words = run(
        """
        import errno, os, selectors
        from support.seccomp import deny
        from pyepoll import EpollSelector, Event

        sel = EpollSelector()
        fds = [os.eventfd(1) for _ in range(3)]
        for fd, flags in zip(fds, (0, Event.ET, Event.PRI)):
            sel.register(fd, selectors.EVENT_READ, "old", flags)
        assert len(sel.select(0)) == 3
        deny("epoll_ctl", errno.EPERM)
        sel.modify(fds[0], selectors.EVENT_READ, "new")
        sel.modify(fds[2], selectors.EVENT_READ, "new", Event.PRI)
        print(sorted(key.data for key, _ in sel.select(0)))
        for fd, flags in (fds[0], Event.RDHUP), (fds[1], None), (fds[2], 0):
            try:
                sel.modify(fd, selectors.EVENT_READ, "new", flags)
            except PermissionError:
                print("refused", len(sel.get_map()))
        """
    )
    assert words.splitlines() == ["['new', 'new']", "refused 2", "refused 1", "refused 0"]


@unlike_stock("keeps the old data, which equals the new")
def test_keys_hold_the_given_data(make: Any, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    with make() as sel:
        sel.register(fd, EVENT_READ, 1)
        assert type(sel.modify(fd, EVENT_READ, 1.0).data) is float
        assert type(sel.select(0)[0][0].data) is float


def test_modify_without_change_keeps_the_key(sel: EpollSelector, eventfd: Eventfd) -> None:
    fd, data = eventfd(0), object()
    key = sel.register(fd, EVENT_READ, data)
    assert sel.modify(fd, EVENT_READ, data) is key


# Numbers that come back, and files that outlive them.


@unlike_stock("spins: it cannot find the key of the event")
def test_a_duplicate_outlives_a_socket(make: Any) -> None:
    a, b = socket.socketpair()
    keep = os.dup(a.fileno())
    with make() as sel:
        key = sel.register(a, EVENT_READ)
        b.send(b"x")
        assert sel.select(0) == [(key, EVENT_READ)]
        a.close()
        assert sel.unregister(a) == key
        sel.select(0)
        try:
            start = time.monotonic()
            assert sel.select(0.1) == []
            assert time.monotonic() - start >= 0.1
        finally:
            os.close(keep)
            b.close()


@unlike_stock("takes the fd for the file that had it", KeyError)
def test_a_reused_fd_has_its_own_key(make: Any, eventfd: Eventfd) -> None:
    number, other = os.dup(eventfd(0)), eventfd(1)
    with make() as sel:
        sel.register(number, EVENT_READ, "old")
        sel.select(0)
        os.dup2(other, number)
        try:
            key = sel.register(number, EVENT_READ, "new")
        finally:
            os.close(number)
        assert sel.get_key(number) is key
        assert len(sel.get_map()) == 1


def test_a_closed_file_object_is_not_found_by_its_old_fd(sel: EpollSelector, eventfd: Eventfd) -> None:
    a, b = socket.socketpair()
    number, other = a.fileno(), eventfd(1)
    sel.register(a, EVENT_READ, "old")
    a.close()
    os.dup2(other, number)
    key = sel.register(number, EVENT_READ, "new")
    for call in sel.unregister, sel.get_key, lambda file: sel.modify(file, EVENT_WRITE):
        with pytest.raises(ValueError, match="Invalid file"):
            call(a)
    assert sel.select(0) == [(key, EVENT_READ)]
    assert sel.unregister(number) is key
    os.close(number)
    b.close()


def test_a_lost_registration_keeps_its_key(sel: EpollSelector, eventfd: Eventfd) -> None:
    """The core notices after some events that the fd is closed; the key goes with unregister."""
    keep = eventfd(1)
    number = os.dup(keep)
    key = sel.register(number, EVENT_READ)
    os.close(number)
    for _ in range(20):
        sel.select(0)
    assert core_of(sel).stats().lost_registrations == 1
    assert sel.get_key(number) is key
    with pytest.raises(OSError, match="not open"):
        sel.register(number, EVENT_READ)
    assert sel.modify(number, EVENT_READ, "data").data == "data"
    assert sel.unregister(number).data == "data"
    assert is_whole(sel)


def test_an_event_of_an_earlier_file_is_not_reported(sel: EpollSelector, eventfd: Eventfd) -> None:
    ready, idle = eventfd(1), eventfd(0)
    number = os.dup(ready)
    sel.register(number, EVENT_READ, "old")
    assert len(sel.select(0)) == 1
    os.dup2(idle, number)
    sel.register(number, EVENT_READ, "new")
    for _ in range(20):
        assert sel.select(0) == []
    sel.unregister(number)
    os.close(number)


@unlike_stock("the child works on the parent's epoll")
@pytest.mark.parametrize("how", ["unregister", "modify", "close"])
def test_a_childs_selector_is_its_own(make: Any, how: str, eventfd: Eventfd) -> None:
    if make is selectors.EpollSelector and how == "close":
        pytest.skip("closing a copy of the fd is harmless in stock as well")
    fd = eventfd(1)
    with make() as sel:
        key = sel.register(fd, EVENT_READ, "data")

        def child() -> None:
            assert sel.select(0) == [(key, EVENT_READ)]
            if how == "unregister":
                sel.unregister(fd)
            elif how == "modify":
                sel.modify(fd, EVENT_WRITE, "child's")
            else:
                sel.close()

        assert in_child(child) == ""
        assert sel.select(0) == [(key, EVENT_READ)]
        assert sel.get_key(fd) is key


# A change that fails.


class Failing:
    """An object with the methods of an epoll, but for modify."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.epoll = make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.epoll, name)

    def modify(self, *_: object) -> None:
        raise ZeroDivisionError


@unlike_stock("leaves the registration in the kernel's list")
def test_a_failed_modify_is_rolled_back(make: Any, eventfd: Eventfd) -> None:
    fd = eventfd(0)
    stock = make is selectors.EpollSelector
    epoll: Any = select.epoll if stock else pyepoll.Epoll

    class Own(make):  # type: ignore[misc]
        def _selector_cls(self) -> Failing:
            return Failing(epoll)

    with Own() as sel:
        sel.register(fd, EVENT_READ)
        with pytest.raises(ZeroDivisionError):
            sel.modify(fd, EVENT_WRITE)
        assert fd not in sel.get_map()
        assert fdinfo(sel) == {}


def test_a_failed_modify_keeps_a_registration_made_meanwhile(eventfd: Eventfd) -> None:
    """By another thread, or by code that runs in between."""
    fd = eventfd(1)

    class Core(pyepoll.Epoll[Any]):
        def modify(self, *_: object) -> None:
            mine.unregister(fd)
            mine.register(fd, EVENT_READ, "new")
            raise ZeroDivisionError

    class Mine(EpollSelector):
        _selector_cls = Core

    with Mine() as mine:
        mine.register(fd, EVENT_READ, "old")
        with pytest.raises(ZeroDivisionError):
            mine.modify(fd, EVENT_WRITE)
        assert mine.get_key(fd).data == "new"
        assert is_whole(mine)


def test_a_modify_refused_by_the_kernel_raises(sel: EpollSelector, eventfd: Eventfd) -> None:
    fd = eventfd(1)
    sel.register(fd, EVENT_READ, flags=Event.EXCLUSIVE)
    with pytest.raises(OSError, match="EXCLUSIVE") as caught:
        sel.modify(fd, EVENT_WRITE)
    assert caught.value.errno == errno.EINVAL
    assert fd not in sel.get_map()
    assert fdinfo(sel) == {}
    sel.register(fd, EVENT_READ)
    assert is_whole(sel)


def test_a_register_refused_by_the_kernel_raises(sel: EpollSelector, closed_fd: int) -> None:
    with open(__file__) as file, pytest.raises(PermissionError):
        sel.register(file, EVENT_READ)
    with pytest.raises(OSError, match="not open") as caught:
        sel.register(closed_fd, EVENT_READ)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="."):
        sel.register(sel, EVENT_READ)
    with pytest.raises(OverflowError):
        sel.register(2**31, EVENT_READ)
    assert len(sel.get_map()) == 0
    assert is_whole(sel)


# Subclasses and stand-ins.


def test_methods_of_a_subclass_are_used(eventfd: Eventfd) -> None:
    class Mine(EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
            return [(key, events | 8) for key, events in super().select(timeout)]

    with Mine() as sel:
        key = sel.register(eventfd(1), EVENT_READ)
        assert sel.select(0) == [(key, EVENT_READ | 8)]


def test_methods_of_a_replaced_epoll_are_called(eventfd: Eventfd) -> None:
    """The overriding method is called."""
    calls: list[Any] = []

    class Core(pyepoll.Epoll[Any]):
        def register(self, *arguments: Any) -> None:  # type: ignore[override]
            calls.append("register")
            super().register(*arguments)

        def poll(self, *arguments: Any) -> Any:
            calls.append(arguments)
            return super().poll(*arguments)

    class Mine(EpollSelector):
        _selector_cls = Core

    fd = eventfd(1)
    with Mine() as sel:
        key = sel.register(fd, EVENT_READ, flags=Event.ET)
        for timeout in None, -1, 0.5:
            assert sel.select(timeout) == [(key, EVENT_READ)]
            key = sel.modify(fd, EVENT_READ)
        assert is_whole(sel)
        assert sel.unregister(fd) is key
    assert calls == ["register", (None,), (0,), (0.5,)]


def test_an_epoll_that_registers_other_data_is_supported(eventfd: Eventfd) -> None:
    class Core(pyepoll.Epoll[Any]):
        def register(self, fd: Any, eventmask: int = 0, data: Any = None) -> None:
            super().register(fd, eventmask, [data])

    class Mine(EpollSelector):
        _selector_cls = Core

    with Mine() as sel:
        key = sel.register(eventfd(1), EVENT_READ)
        assert sel.get_key(key.fd) is key
        ready: list[Any] = sel.select(0)
        assert ready == [([key], Event.IN)]
        assert sel.unregister(key.fd) is key
        assert len(sel.get_map()) == 0


def test_data_other_than_a_key_is_handed_out_with_an_event(sel: EpollSelector, eventfd: Eventfd) -> None:
    keys = [
        "data",
        (1, 2, 3, 4),
        tuple.__new__(SelectorKey, (1, 2)),
        SelectorKey(0, 0, 7, None),
        SelectorKey(0, 0, None, None),  # type: ignore[arg-type]
    ]
    for each in keys:
        core_of(sel).register(eventfd(1), Event.IN, each)
    got: list[Any] = sel.select(0)
    assert [data for data, _ in got] == keys
    assert all(events is Event.IN for _, events in got)


def test_a_mock_can_replace_the_epoll(eventfd: Eventfd) -> None:
    with mock.patch.object(EpollSelector, "_selector_cls") as core:
        sel = EpollSelector()
        fd = eventfd(1)
        key = sel.register(fd, BOTH)
        core.return_value.register.assert_called_once_with(fd, Event.IN | Event.OUT, key)
        key = sel.modify(fd, EVENT_READ, "data", Event.ET)
        core.return_value.modify.assert_called_once_with(fd, Event.IN | Event.ET, key)
        assert sel.get_key(fd) is key
        core.return_value.unregister.side_effect = ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            sel.unregister(fd)
        assert len(sel._map or "") == 0
        core.return_value.register.side_effect = FileExistsError
        with pytest.raises(KeyError, match="already registered"):
            sel.register(fd, EVENT_READ)
        sel.close()
        core.return_value.close.assert_called_once_with()


def test_an_epoll_replaced_during_a_wait_stays_alive(
    sel: EpollSelector, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    """The wait that is under way has a hold of the old one."""
    fd = eventfd(0)
    key = sel.register(fd, EVENT_READ)
    wait = pool.submit(sel.select)
    until(lambda: waiters() == 1)
    sel._selector = pyepoll.Epoll()
    assert sel.select(0) == []
    os.eventfd_write(fd, 1)
    assert wait.result(10) == [(key, EVENT_READ)]
    del sel._selector
    for call in sel.select, sel.fileno, lambda: sel.register(fd, EVENT_READ), lambda: sel.unregister(fd):
        with pytest.raises(AttributeError, match="_selector"):
            call()
    sel._selector = pyepoll.Epoll()


def test_missing_super_init_is_an_error() -> None:
    class Mine(EpollSelector):
        def __init__(self, argument: str) -> None:
            pass

    sel = Mine("argument")
    with pytest.raises(AttributeError, match="was __init__ called"):
        sel.select(0)


# References, and deallocation.


@unlike_stock("is part of a cycle")
def test_an_unreferenced_selector_is_deallocated(make: Any, eventfd: Eventfd) -> None:
    gc.disable()
    try:
        sel = make()
        fd = sel.fileno()
        sel.register(eventfd(1), EVENT_READ)
        sel.select(0)
        reference = weakref.ref(sel)
        del sel
        assert reference() is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    finally:
        gc.enable()


def test_a_cycle_through_a_key_is_collected(eventfd: Eventfd) -> None:
    sel = EpollSelector()
    sel.register(eventfd(1), EVENT_READ, [sel])
    sel.select(0)
    reference = weakref.ref(sel)
    del sel
    gc.collect()
    assert reference() is None


def test_a_key_is_released_with_its_registration(sel: EpollSelector, eventfd: Eventfd) -> None:
    class Data:
        pass

    def gone(change: Callable[[], object]) -> bool:
        reference = weakref.ref(sel.get_key(fd).data)
        assert len(sel.select(0)) == 1
        change()
        gc.collect()
        return reference() is None

    fd = eventfd(1)
    sel.register(fd, EVENT_READ, Data())
    assert gone(lambda: sel.modify(fd, EVENT_READ, Data()))
    assert gone(lambda: sel.modify(fd, BOTH, Data()))
    assert gone(lambda: sel.unregister(fd))
    sel.register(fd, EVENT_READ, Data())
    assert gone(sel.close)


def test_a_finalizer_of_data_may_use_the_selector(sel: EpollSelector, eventfd: Eventfd) -> None:
    """It is released outside all locks."""
    ended: list[SelectorKey] = []

    class Data:
        def __del__(self) -> None:
            sel.select(0)
            sel.register(other, EVENT_READ)
            ended.append(sel.unregister(other))

    fd, other = eventfd(0), eventfd(0)
    sel.register(fd, EVENT_READ, Data())
    sel.modify(fd, EVENT_READ, Data())
    sel.modify(fd, EVENT_WRITE, Data())
    sel.unregister(fd)
    gc.collect()
    assert len(ended) == 3
    assert is_whole(sel)


def test_selectors_cannot_be_copied_or_pickled(sel: EpollSelector) -> None:
    for call in copy.copy, copy.deepcopy, pickle.dumps:
        with pytest.raises(TypeError, match="pickle"):
            call(sel)


# Threads.


def test_registrations_can_change_while_another_thread_waits(
    sel: EpollSelector, eventfd: Eventfd, pool: ThreadPoolExecutor
) -> None:
    fd, other = eventfd(1), eventfd(1)
    wait = pool.submit(sel.select)
    until(lambda: waiters() == 1)
    key = sel.register(fd, EVENT_READ)
    assert wait.result(10) == [(key, EVENT_READ)]
    sel.unregister(fd)
    sel.register(other, EVENT_READ, flags=Event.ET)
    assert len(sel.select(0)) == 1
    wait = pool.submit(sel.select)
    until(lambda: waiters() == 1)
    assert sel.get_key(other).fd == other
    sel.register(fd, EVENT_READ, flags=Event.ONESHOT)
    assert len(wait.result(10)) == 1
    wait = pool.submit(sel.select)
    until(lambda: waiters() == 1)
    key = sel.modify(other, EVENT_WRITE, "data")
    assert wait.result(10) == [(key, EVENT_WRITE)]


@unlike_stock("sleeps on", pytest.fail.Exception)
def test_close_ends_a_wait(make: Any, eventfd: Eventfd, pool: ThreadPoolExecutor) -> None:
    sel = make()
    sel.register(eventfd(0), EVENT_READ)
    wait = pool.submit(sel.select, 1.5)
    until(lambda: waiters() == 1)
    sel.close()
    with pytest.raises(ValueError, match="closed"):
        wait.result(10)


def test_concurrent_changes_keep_keys_and_registrations_equal(
    sel: EpollSelector, eventfd: Eventfd, effort: Effort
) -> None:
    """Threads register, modify and unregister the same few files: the keys are the registrations."""
    fds = [eventfd(1) for _ in range(3)]
    allowed = (KeyError, FileNotFoundError)

    def change(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(effort(1000, 20_000)):
            fd = choose.choice(fds)
            data = object()
            try:
                match choose.randrange(4):
                    case 0:
                        assert sel.register(fd, EVENT_READ, data).data is data
                    case 1:
                        assert sel.modify(fd, choose.choice([EVENT_READ, BOTH]), data).data is data
                    case 2:
                        assert sel.unregister(fd).fd == fd
                    case 3:
                        assert sel.get_key(fd).fd == fd
            except allowed:
                pass

    def wait() -> None:
        for _ in range(effort(1000, 20_000)):
            for key, events in sel.select(0):
                assert type(key) is SelectorKey
                assert key.fd in fds
                assert type(events) is int
                assert events & key.events == events != 0

    for turn in range(3):
        seeds = range(turn * 10, turn * 10 + 3)
        assert together(*[lambda seed=seed: change(seed) for seed in seeds], wait) == []
        assert is_whole(sel)


def test_one_of_two_concurrent_registers_wins(sel: EpollSelector, eventfd: Eventfd, effort: Effort) -> None:
    fd = eventfd(1)
    for _ in range(effort(100, 2000)):
        won: list[str] = []

        def attempt(name: str, call: Callable[[], object], won: list[str] = won) -> None:
            try:
                call()
            except KeyError:
                return
            won.append(name)

        assert together(*[lambda: attempt("in", lambda: sel.register(fd, EVENT_READ))] * 2) == []
        assert together(*[lambda: attempt("out", lambda: sel.unregister(fd))] * 2) == []
        assert won == ["in", "out"]
        assert is_whole(sel)
