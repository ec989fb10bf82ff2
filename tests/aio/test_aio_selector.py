"""LoopSelector: a selectors.BaseSelector; changes for known sockets reach the kernel with the next wait."""

import asyncio
import gc
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.effort import Effort
from support.kernel import IMPLIED, fdinfo, fdinfo_lines
from support.loops import on, soon
from support.processes import run
from support.threads import until

import pyepoll
from pyepoll import aio

# On some interpreters hypothesis does not find the references to its generator, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")

BOTH = EVENT_READ | EVENT_WRITE
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


def mask(events: int) -> int:
    return (events & EVENT_READ and pyepoll.EPOLLIN) | (events & EVENT_WRITE and pyepoll.EPOLLOUT) | IMPLIED


def kernel(sel: aio.LoopSelector) -> dict[int, int]:
    """The events that the kernel watches, by fd."""
    return {fd: events for fd, (events, _) in fdinfo(sel._selector).items()}


def ready(sel: selectors.BaseSelector) -> list[tuple[int, Any, int]]:
    return sorted((key.fd, key.data, events) for key, events in sel.select(0))


def test_it_is_a_selector(sel: aio.LoopSelector, pair: Sockets) -> None:
    a, b = pair
    assert isinstance(sel, selectors.BaseSelector)
    key = sel.register(a, EVENT_READ, "data")
    assert key == selectors.SelectorKey(a, a.fileno(), EVENT_READ, "data")
    assert sel.get_key(a) is key
    assert sel.get_map()[a.fileno()] is key
    assert dict(sel.get_map()) == {a.fileno(): key}
    assert list(sel.get_map().values()) == [key]
    assert a in sel.get_map()
    assert b not in sel.get_map()
    assert object() not in sel.get_map()
    with pytest.raises(KeyError, match="already registered"):
        sel.register(a.fileno(), EVENT_WRITE)
    assert sel.select(0) == []
    b.send(b"x")
    assert sel.select() == [(key, EVENT_READ)]
    changed = sel.modify(a, BOTH, "more")
    assert changed.data == "more"
    assert sel.select(1) == [(changed, BOTH)]
    assert sel.unregister(a) is changed
    assert len(sel.get_map()) == 0
    for call in (sel.unregister, sel.get_key, lambda sock: sel.modify(sock, EVENT_READ)):
        with pytest.raises(KeyError, match="not registered"):
            call(a)


def test_errors_are_those_of_selectors(sel: aio.LoopSelector, pair: Sockets) -> None:
    a, _ = pair
    for events in (0, 4, -1, 2**70, "1", None):
        with pytest.raises(ValueError, match="Invalid events"):
            sel.register(a, events)  # type: ignore[arg-type]
    for fileobj in ("a", -1, object()):
        with pytest.raises(ValueError, match="Invalid file"):
            sel.register(fileobj, EVENT_READ)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        sel.register(2**40, EVENT_READ)
    with pytest.raises(OSError, match="not open"):
        sel.register(10**6, EVENT_READ)
    with open(__file__) as file, pytest.raises(PermissionError):
        sel.register(file, EVENT_READ)
    assert len(sel.get_map()) == 0
    assert kernel(sel) == {}
    sel.register(a, EVENT_READ)
    sel.close()
    sel.close()
    assert sel.get_map() is None
    with pytest.raises(RuntimeError, match="closed"):
        sel.get_key(a)
    for call in (lambda: sel.register(a, EVENT_READ), lambda: sel.select(0), sel.fileno):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_changes_of_a_known_socket_wait_for_the_select(sel: aio.LoopSelector, pair: Sockets) -> None:
    a, _ = pair
    fd = a.fileno()
    sel.register(a, EVENT_READ)
    assert kernel(sel) == {fd: mask(EVENT_READ)}
    sel.modify(a, BOTH)
    sel.unregister(a)
    sel.register(a, EVENT_WRITE)
    assert kernel(sel) == {fd: mask(EVENT_READ)}
    assert ready(sel) == [(fd, None, EVENT_WRITE)]
    assert kernel(sel) == {fd: mask(EVENT_WRITE)}
    sel.unregister(a)
    assert kernel(sel) == {fd: mask(EVENT_WRITE)}
    assert sel.select(0) == []
    assert kernel(sel) == {}


def test_changes_of_other_objects_come_at_once(sel: aio.LoopSelector, pair: Sockets) -> None:
    class Other(socket.socket):
        pass

    a, _ = pair
    other = Other(fileno=os.dup(a.fileno()))
    for fileobj, fd in ((a.fileno(), a.fileno()), (other, other.fileno())):
        sel.register(fileobj, EVENT_READ)
        sel.modify(fileobj, BOTH)
        assert kernel(sel) == {fd: mask(BOTH)}
        sel.unregister(fileobj)
        assert kernel(sel) == {}
    other.close()


def test_an_int_is_checked_although_its_socket_is_known(sel: aio.LoopSelector, pair: Sockets) -> None:
    a, _ = pair
    sel.register(a, EVENT_READ)
    sel.modify(a.fileno(), EVENT_WRITE)
    assert kernel(sel) == {a.fileno(): mask(EVENT_WRITE)}
    assert sel.get_key(a).fileobj is a


def test_each_method_takes_the_file_by_name(sel: aio.LoopSelector, pair: Sockets) -> None:
    sel.register(fileobj=pair[0], events=EVENT_READ)
    sel.modify(fileobj=pair[0], events=EVENT_WRITE)
    assert sel.unregister(fileobj=pair[0]).events == EVENT_WRITE
    with pytest.raises(KeyError):
        sel.unregister(fileobj=pair[0])


def test_a_socket_is_not_kept_once_it_is_unregistered(sel: aio.LoopSelector) -> None:
    pair: Any = socket.socketpair()
    a, b = pair
    sel.register(a, EVENT_READ)
    sel.unregister(a)
    seen = weakref.ref(a)
    pair = [a]
    pair.append(pair)  # The collector frees it, within the block that expects the warning.
    del pair, a
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()
    assert seen() is None
    assert b.recv(1) == b""
    b.close()
    assert sel.select(0) == []


def test_an_fd_that_others_closed_is_given_up_silently(sel: aio.LoopSelector, pair: Sockets) -> None:
    fd = pair[0].detach()
    known = socket.socket(fileno=fd)
    reader, writer = os.pipe()
    sel.register(known, EVENT_READ, "data")
    os.close(fd)
    sel.modify(known, BOTH, "data")
    assert sel.select(0) == []
    assert sel.get_key(fd).data == "data"
    os.dup2(writer, fd)
    sel.modify(known, EVENT_WRITE, "new")
    assert ready(sel) == [(fd, "new", EVENT_WRITE)]
    sel.unregister(known)
    known.close()
    os.close(reader)
    os.close(writer)


def test_a_change_during_a_wait_comes_at_once(sel: aio.LoopSelector, pair: Sockets) -> None:
    """Another thread waits: it must not sleep on without the change."""
    a, _ = pair
    sel.register(a, EVENT_READ)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.extend(sel.select(20)))
    waiter.start()
    until(lambda: sel._selector.stats().waits == 1)
    sel.modify(a, BOTH)
    waiter.join()
    assert [events for _, events in found] == [EVENT_WRITE]


def test_threads_that_change_one_fd(sel: aio.LoopSelector, effort: Effort) -> None:
    """Whatever the order, the kernel has the last state in the end."""
    a, b = socket.socketpair()
    fd = a.fileno()

    def change(fileobj: Any) -> None:
        for turn in range(effort(300, 5000)):
            try:
                if turn % 3 == 0:
                    sel.register(fileobj, EVENT_READ)
                elif turn % 3 == 1:
                    sel.modify(fileobj, BOTH)
                else:
                    sel.unregister(fileobj)
            except KeyError:
                pass
            if turn % 7 == 0:
                sel.select(0)

    threads = [threading.Thread(target=change, args=(fileobj,)) for fileobj in (a, fd, a)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sel.select(0)
    assert kernel(sel) == {fd: mask(key.events) for fd, key in sel.get_map().items()}
    a.close()
    b.close()


OPS = st.one_of(
    st.tuples(
        st.sampled_from(["register", "modify"]),
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from([EVENT_READ, EVENT_WRITE, BOTH]),
    ),
    st.tuples(st.just("unregister"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("send"), st.integers(0, 3)),
    st.tuples(st.just("recv"), st.integers(0, 3)),
    st.tuples(st.just("reopen"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("select")),
)


class Walk:
    """The same steps on selectors.EpollSelector and on ours, each on sockets of its own."""

    def __init__(self, selector: Any) -> None:
        self.selector = selector
        self.pairs = [socket.socketpair() for _ in range(4)]
        self.kept: list[socket.socket] = []
        self.stale: set[int] = set()
        for pair in self.pairs:
            for sock in pair:
                sock.setblocking(False)

    def close(self) -> None:
        for sock in [*self.kept, *(sock for pair in self.pairs for sock in pair)]:
            sock.close()
        self.selector.close()

    def step(self, number: int, name: str, *args: Any) -> Any:
        try:
            return getattr(self, name)(number, *args)
        except (KeyError, BlockingIOError) as error:
            return type(error)

    def where(self, which: int, as_int: bool) -> Any:
        near = self.pairs[which][0]
        return near.fileno() if as_int else near

    def shown(self, key: selectors.SelectorKey) -> Any:
        fds = [near.fileno() for near, _ in self.pairs]
        return fds.index(key.fd), key.events, key.data, isinstance(key.fileobj, int)

    def register(self, number: int, which: int, as_int: bool, events: int) -> Any:
        return self.shown(self.selector.register(self.where(which, as_int), events, number))

    def modify(self, number: int, which: int, as_int: bool, events: int) -> Any:
        return self.shown(self.selector.modify(self.where(which, as_int), events, number))

    def unregister(self, number: int, which: int, as_int: bool) -> Any:
        return self.shown(self.selector.unregister(self.where(which, as_int)))

    def send(self, number: int, which: int) -> None:
        self.pairs[which][1].send(b"x")

    def recv(self, number: int, which: int) -> Any:
        return self.pairs[which][0].recv(10)

    def reopen(self, number: int, which: int, duplicate: bool) -> Any:
        """Unregister, close, and make another pair, whose first fd is the same."""
        near, far = self.pairs[which]
        fd = near.fileno()
        if near in self.selector.get_map():
            self.selector.unregister(near)
        if duplicate:
            self.kept.append(near.dup())
            self.stale.add(fd)  # The kernel may keep its entry until it reports.
        made, new_far = socket.socketpair()
        os.dup2(made.fileno(), near.detach())
        new_near = socket.socket(fileno=fd)
        made.close()
        far.close()
        new_near.setblocking(False)
        new_far.setblocking(False)
        self.pairs[which] = new_near, new_far

    def select(self, number: int) -> Any:
        return sorted((self.shown(key), events) for key, events in self.selector.select(0))

    def map(self) -> Any:
        return sorted(self.shown(key) for key in self.selector.get_map().values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(steps=st.lists(OPS, max_size=40))
def test_a_walk_comes_to_the_same_as_on_stock(steps: list[Any]) -> None:
    seen = []
    for selector in (selectors.EpollSelector(), aio.LoopSelector()):
        walk = Walk(selector)
        try:
            shown = []
            for number, (name, *args) in enumerate([*steps, ("select",)]):
                shown.append((name, walk.step(number, name, *args), walk.map()))
                if name == "select" and isinstance(selector, aio.LoopSelector):
                    live = {fd: mask(key.events) for fd, key in selector.get_map().items()}
                    lines = {(fd, events) for fd, events, _ in fdinfo_lines(selector._selector)}
                    assert live.items() <= lines
                    assert {fd for fd, _ in lines - live.items()} <= walk.stale
            seen.append(shown)
        finally:
            walk.close()
    assert seen[0] == seen[1]


def test_events_of_cancelled_handles_are_dropped_and_removed() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        a, b = socket.socketpair()
        called: list[str] = []
        loop.add_reader(a, called.append, "read")
        loop.add_writer(a, called.append, "write")
        reader, _ = loop._selector.get_key(a).data
        reader.cancel()
        b.send(b"x")
        await soon(lambda: "write" in called)
        assert "read" not in called
        assert loop._selector.get_key(a).events == EVENT_WRITE
        assert loop.remove_writer(a)
        a.close()
        b.close()

    on("pyepoll", main)


def test_data_of_another_form_is_an_error_of_the_turn(sel: aio.LoopSelector, pair: Sockets) -> None:
    loop = aio.EventLoop(sel)
    sel.register(pair[0], EVENT_WRITE, "no pair")
    try:
        with pytest.raises(TypeError, match="not \\(reader, writer\\)"):
            loop.run_until_complete(asyncio.sleep(0.01))
    finally:
        sel.unregister(pair[0])
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_asyncios_own_code_works_on_the_table() -> None:
    """The functions of asyncio's class, in turn with ours."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        stock: Any = asyncio.SelectorEventLoop
        before = kernel(loop._selector)
        a, b = socket.socketpair()
        called: list[str] = []
        stock._add_reader(loop, a, called.append, "stock read")
        loop.add_writer(a, called.append, "write")
        b.send(b"x")
        await soon(lambda: set(called) == {"stock read", "write"})
        assert stock._remove_writer(loop, a) is True
        assert loop.remove_writer(a) is False
        loop.add_reader(a, called.append, "read")
        called.clear()
        await soon(lambda: bool(called))
        assert set(called) == {"read"}
        assert stock.remove_reader(loop, a) is True
        await asyncio.sleep(0.01)
        assert kernel(loop._selector) == before
        assert before[loop._ssock.fileno()] == mask(EVENT_READ)
        a.close()
        b.close()

    on("pyepoll", main)


@pytest.mark.parametrize("method", ["_add_reader", "_remove_reader", "_ensure_fd_no_transport"])
@pytest.mark.parametrize("where", ["subclass", "instance"])
def test_a_replaced_method_is_called(method: str, where: str) -> None:
    seen: list[Any] = []

    def replaced(self: Any, *args: Any) -> Any:
        seen.append(args[0])
        return getattr(aio.EventLoop, method)(self, *args)

    kind: Any = type("Loop", (aio.EventLoop,), {method: replaced} if where == "subclass" else {})

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        if where == "instance":
            setattr(loop, method, lambda *args: replaced(loop, *args))
        seen.clear()
        a, b = socket.socketpair()
        loop.add_reader(a, print)
        assert loop.remove_reader(a)
        assert seen == [a] * (2 if method == "_ensure_fd_no_transport" else 1)
        a.close()
        b.close()

    with asyncio.Runner(loop_factory=kind) as runner:
        runner.run(main())


def test_a_forked_child_gets_an_explanation_and_the_parent_goes_on() -> None:
    shown = run("""
import asyncio, os, socket, warnings
import pyepoll.aio
warnings.simplefilter("ignore", DeprecationWarning)

async def main():
    loop = asyncio.get_running_loop()
    a, b = socket.socketpair()
    got = loop.create_future()
    loop.add_reader(a, lambda: got.done() or got.set_result(a.recv(1)))
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            loop.add_reader(b, print)
        except RuntimeError as error:
            status = 0 if "belongs to the process that forked" in str(error) else 2
        assert loop.remove_reader(a)
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    b.send(b"x")
    assert await asyncio.wait_for(got, 20) == b"x"
    loop.remove_reader(a)
    a.close(); b.close()

with asyncio.Runner(loop_factory=pyepoll.aio.new_event_loop) as runner:
    runner.run(main())
    loop = runner.get_loop()
    child = os.fork()
    if child == 0:
        try:
            loop.run_until_complete(asyncio.sleep(0.01))
        except RuntimeError as error:
            assert "belongs to the process that forked" in str(error)
            loop.close()
            pyepoll.aio.run(asyncio.sleep(0))
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    runner.run(asyncio.sleep(0))
print("fine")
""")
    assert shown == "fine\n"


def test_a_loop_and_its_readers_are_collected() -> None:
    loop = aio.new_event_loop()
    a, b = socket.socketpair()
    loop.add_reader(a, print)
    seen = weakref.ref(loop)
    del loop
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert seen() is None
    a.close()
    b.close()
