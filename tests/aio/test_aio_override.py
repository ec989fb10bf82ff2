"""A replaced method of the loop is called: by a subclass, on the loop, in a class or in a module."""

import asyncio
import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from support.loops import FACTORIES

import pyepoll
from pyepoll.aio import EventLoop


def use(loop: Any) -> None:
    """Make the loop use all its hooks."""
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, a.recv, 100)
        b.send(b"data")
        loop.call_soon(int)
        loop.call_soon_threadsafe(int)
        loop.call_later(100, int).cancel()
        loop.call_at(loop.time() + 100, int).cancel()
        loop.call_later(0.001, loop.stop)
        thread = threading.Timer(0.0005, loop.call_soon_threadsafe, (int,))
        thread.start()
        loop.run_forever()
        thread.join()
        loop.remove_reader(a)

        async def main() -> None:
            await loop.create_task(asyncio.sleep(0))
            loop.call_soon(loop.create_future().set_result, None)

        loop.run_until_complete(main())


# The loop registers its _read_from_self() when it is made: it counts who has it then.
WHEN_MADE = ["_read_from_self"]
HOOKS = [
    "_add_callback",
    "_call_soon",
    "_check_closed",
    "_process_events",
    "_run_once",
    "_timer_handle_cancelled",
    "_write_to_self",
    "call_at",
    "call_later",
    "call_soon",
    "call_soon_threadsafe",
    "create_future",
    "create_task",
    "get_debug",
    "run_forever",
    "time",
]


def by_subclass(make: Callable[[], Any], name: str, called: list[str]) -> Any:
    base: Any = type(probe := make())
    probe.close()

    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return getattr(super(Subclass, self), name)(*args, **kwargs)

    Subclass: Any = type("Subclass", (base,), {name: hook})
    return Subclass()


def noting(proper: Any, name: str, called: list[str]) -> Any:
    def hook(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return proper(*args, **kwargs)

    return hook


def on_the_loop(make: Callable[[], Any], name: str, called: list[str]) -> Any:
    loop = make()
    proper = getattr(loop, name)
    setattr(loop, name, noting(proper, name, called))
    return loop


def in_its_dict(make: Callable[[], Any], name: str, called: list[str]) -> Any:
    loop = make()
    names = vars(loop)
    use(loop)
    proper = getattr(loop, name)
    names[name] = noting(proper, name, called)
    return loop


@pytest.mark.parametrize(
    ("name", "replace"),
    [
        *((name, by_subclass) for name in [*HOOKS, *WHEN_MADE]),
        *((name, replace) for name in HOOKS for replace in (on_the_loop, in_its_dict)),
    ],
)
def test_replaced_method_is_called(name: str, replace: Callable[..., Any]) -> None:
    counts = []
    for make in FACTORIES.values():
        called: list[str] = []
        loop = replace(make, name, called)
        called.clear()
        with contextlib.closing(loop):
            use(loop)
        counts.append(len(called))
    assert min(counts) > 0, counts


@pytest.mark.parametrize("owner", [asyncio.SelectorEventLoop, asyncio.BaseEventLoop, EventLoop])
@pytest.mark.parametrize("name", HOOKS)
def test_patched_class_is_called(name: str, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while there are loops; and not after the patch has been taken back."""
    if not hasattr(asyncio.BaseEventLoop, name):
        owner = asyncio.SelectorEventLoop if owner is asyncio.BaseEventLoop else owner
    base: Any = asyncio.selector_events.BaseSelectorEventLoop
    if owner is asyncio.BaseEventLoop and name in vars(base):
        owner = base
    with contextlib.closing(EventLoop()) as loop:
        use(loop)
        called: list[str] = []
        proper = getattr(owner, name)
        monkeypatch.setattr(owner, name, noting(proper, name, called))
        use(loop)
        assert called
        monkeypatch.undo()
        called.clear()
        use(loop)
        assert not called


def test_hook_put_into_the_dict_of_a_loop_is_called_at_once() -> None:
    """Not only after the next attribute was set."""
    with contextlib.closing(EventLoop()) as loop:
        loop.call_soon(int)
        called: list[str] = []
        names: Any = vars(loop)
        names["_call_soon"] = noting(loop._call_soon, "_call_soon", called)
        loop.call_soon(int)
        assert called == ["_call_soon"]


class Interrupted(type):
    """Its classes call a function, once, when an attribute is looked up; another thread might run there."""

    actions: ClassVar[dict[str, Callable[[], None]]] = {}

    def __getattribute__(cls, name: str) -> Any:
        Interrupted.actions.pop(name, int)()
        return super().__getattribute__(name)


def test_hook_set_while_another_attribute_is_set_is_called() -> None:
    Loop = Interrupted("Loop", (EventLoop,), {})
    called: list[str] = []
    with contextlib.closing(Loop()) as loop:
        hook = noting(loop._call_soon, "_call_soon", called)
        Interrupted.actions["_internal_fds"] = lambda: setattr(loop, "_call_soon", hook)
        loop._internal_fds = loop._internal_fds
        assert not Interrupted.actions
        loop.call_soon(int)
    assert called == ["_call_soon"]


def test_class_patched_while_the_hooks_are_looked_up_is_called() -> None:
    Loop = Interrupted("Loop", (EventLoop,), {})
    called: list[str] = []
    with contextlib.closing(Loop()) as loop:
        loop.call_soon(int)
        hook = noting(Loop.call_at, "call_at", called)
        Interrupted.actions["_write_to_self"] = lambda: setattr(Loop, "call_at", hook)
        loop.set_debug(False)  # An attribute was set: the next call looks.
        loop.call_soon(int)
        assert not Interrupted.actions
        loop.call_later(100, int)
    assert called == ["call_at"]


@contextlib.contextmanager
def patched_monotonic(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """As freezegun and other tools do it: the time stands still until it is set."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_patched_monotonic_moves_the_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(EventLoop()) as loop:
        ran: list[str] = []
        loop.call_later(1000, ran.append, "before")
        with patched_monotonic(monkeypatch) as now:
            loop.call_later(500, ran.append, "after")
            now[0] += 700
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert ran == ["after"]
            assert loop.time() == now[0]
            now[0] += 700
            for _ in range(2):
                loop.call_soon(loop.stop)
                loop.run_forever()
            assert ran == ["after", "before"]


def test_time_of_the_loop_moves_the_timers() -> None:
    """Virtual time, as test tools make it."""
    with contextlib.closing(EventLoop()) as loop:
        now = [0.0]
        waited: list[float | None] = []

        def select(timeout: float | None) -> list[Any]:
            waited.append(timeout)
            now[0] += timeout or 0
            return []

        loop.time = lambda: now[0]  # type: ignore[method-assign]
        loop._selector.select = select
        start = time.perf_counter()
        loop.run_until_complete(asyncio.sleep(3600))
        assert now[0] == 3600
        assert 3600 in waited
        assert time.perf_counter() - start < 3000
        del loop.time, loop._selector.select


@pytest.mark.parametrize("selector", [None, pyepoll.EpollSelector])
def test_select_of_the_selector_is_called(selector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced on the object and on the class: no turn goes without it."""
    with contextlib.closing(EventLoop(selector and selector())) as loop:
        calls: list[Any] = []
        kind: Any = type(loop._selector)
        proper = kind.select

        def select(self: Any, timeout: float | None = None) -> Any:
            calls.append(timeout)
            return proper(self, timeout)

        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        loop.run_until_complete(turns())
        monkeypatch.setattr(kind, "select", select)
        loop.run_until_complete(turns())
        assert calls.count(0) >= 10
        monkeypatch.undo()
        calls.clear()
        loop.run_until_complete(turns())
        assert not calls
        loop._selector.select = lambda timeout=None: select(loop._selector, timeout)
        loop.run_until_complete(turns())
        assert calls.count(0) >= 10


def test_run_of_a_handle_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(EventLoop()) as loop:
        use(loop)
        proper: Any = asyncio.Handle._run
        ran: list[Any] = []

        def run(self: Any) -> None:
            ran.append(self)
            proper(self)

        monkeypatch.setattr(asyncio.Handle, "_run", run)
        use(loop)
        assert len(ran) > 5
        assert any(isinstance(handle, asyncio.TimerHandle) for handle in ran)


@pytest.mark.parametrize("module", [asyncio.futures, asyncio.tasks])
def test_class_of_a_module_is_used(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Future" if module is asyncio.futures else "Task"
    ours: Any = type(name, (getattr(module, name),), {})
    monkeypatch.setattr(module, name, ours)
    with contextlib.closing(EventLoop()) as loop:
        if name == "Future":
            assert type(loop.create_future()) is ours
        else:
            task = loop.create_task(asyncio.sleep(0))
            assert type(task) is ours
            loop.run_until_complete(task)


def test_any_selector_is_used() -> None:
    """Its select() is called in every turn, as asyncio's loop does."""
    import selectors

    for kind in selectors.SelectSelector, selectors.EpollSelector:

        class Counts(kind):  # type: ignore[misc,valid-type]
            calls = 0

            def select(self, timeout: float | None = None) -> Any:
                self.calls += 1
                return super().select(timeout)

        counts = []
        for make in asyncio.SelectorEventLoop, EventLoop:
            selector = Counts()
            with contextlib.closing(make(selector)) as loop:

                async def turns() -> None:
                    for _ in range(10):
                        await asyncio.sleep(0)

                loop.run_until_complete(turns())
            counts.append(selector.calls)
        assert counts[0] == counts[1]


def test_replaced_fileno_of_socket_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class's method; while it is replaced, and not any more once it is restored."""
    a, b = socket.socketpair()
    with a, b, contextlib.closing(EventLoop()) as loop:
        loop.add_reader(a, int)
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "fileno", lambda sock: 10**6, raising=False)
            with pytest.raises(OSError, match=r"fd 1000000\b"):
                loop.add_reader(a, int)
        assert loop.remove_reader(a)


def test_replaced_transports_are_looked_up() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with b:
            loop.add_writer(a, int)
            assert loop.remove_writer(a)
            loop._transports = weakref.WeakValueDictionary()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, a)
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_writer(a, int)
            transport.close()

    pyepoll.aio.run(main())


def test_replaced_task_is_called_with_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """As asyncio's method of CPython 3.12 calls it."""
    original = asyncio.tasks.Task
    made: list[str | None] = []

    def make(coro: Any, *, loop: Any, name: str | None, context: Any) -> Any:
        made.append(name)
        return original(coro, loop=loop, name=name, context=context)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.tasks, "Task", make)
            await loop.create_task(asyncio.sleep(0))
            await loop.create_task(asyncio.sleep(0), name="named")
        assert (await asyncio.create_task(asyncio.sleep(0, "plain"))) == "plain"

    pyepoll.aio.run(main())
    assert made == [None, "named"]


def test_a_hook_that_a_class_lacks_is_as_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A debug build of CPython aborts if the error of its look-up stays."""
    monkeypatch.delattr(asyncio.selector_events.BaseSelectorEventLoop, "_accept_connection2")
    ran: list[int] = []
    loop: Any = FACTORIES["pyepoll"]()
    try:
        loop.call_soon(ran.append, 1)
        loop.call_later(0, loop.stop)
        loop.run_forever()
    finally:
        loop.close()
    assert ran == [1]
