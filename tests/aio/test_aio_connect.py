"""Connections that are made and accepted in fewer steps than in asyncio: the same for the program."""

import asyncio
import collections
import contextlib
import contextvars
import errno
import functools
import gc
import os
import re
import selectors
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from support.loops import Keeps, Plain, complaints, error_text, on, plain, same, soon, turns

from pyepoll import aio

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="")
HOSTS: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@contextmanager
def listening(family: int = socket.AF_INET, backlog: int = 100) -> Iterator[tuple[str, int]]:
    """The host and port of a listener whose connections are not accepted."""
    with socket.create_server((HOSTS[family], 0), family=family, backlog=backlog) as listener:
        yield listener.getsockname()[:2]


@contextmanager
def full() -> Iterator[tuple[str, int]]:
    """The address of a listener that does not answer: its queue is full."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield listener.getsockname()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(factory: Callable[[], Any], family: int = socket.AF_INET) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.get_running_loop().create_server(factory, HOSTS[family], 0)
    yield server.sockets[0].getsockname()[:2]
    server.close()
    await server.wait_closed()


def usual(scenario: Callable[[], Any], name: str) -> Any:
    """The most frequent result: on a busy machine, the kernel may deliver a packet later than usual."""
    results = [on(name, scenario) for _ in range(5)]
    counts = collections.Counter(map(repr, results))
    return counts.most_common(1)[0][0]


def fds() -> list[str]:
    return os.listdir("/proc/self/fd")


class Notes(Keeps, asyncio.Protocol):
    """Writes into a list shared by both ends, with the turn of the loop and the context."""

    def __init__(self, name: str, notes: Callable[[str], None]) -> None:
        super().__init__()
        self.name = name
        self.note = notes
        notes(f"{name} factory")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.note(f"{self.name} made")

    def data_received(self, data: bytes) -> None:
        self.note(f"{self.name} data")

    def eof_received(self) -> None:
        self.note(f"{self.name} eof")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.note(f"{self.name} lost")


@pytest.mark.parametrize("family", HOSTS)
def test_both_ends_are_called_in_the_same_turns_as_in_asyncio(family: int) -> None:
    async def scenario() -> list[tuple[int, str, str]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[int, str, str]] = []
        turn = 0

        def tick() -> None:
            nonlocal turn
            turn += 1
            loop.call_soon(tick)

        def note(what: str) -> None:
            seen.append((turn, what, NAME.get()))

        NAME.set("server")
        async with serving(lambda: Notes("server", note), family) as (host, port):
            NAME.set("client")
            await turns()
            tick()
            transport: Any
            transport, client = await loop.create_connection(lambda: Notes("client", note), host, port)
            note("returned")
            transport.write(b"data")
            await turns()
            transport.close()
            await soon(client.lost)
            await soon(lambda: any(what == "server lost" for _, what, _ in seen))
        return [entry for entry in seen if "lost" not in entry[1]]

    assert usual(scenario, "pyepoll") == usual(scenario, "asyncio")


@pytest.mark.parametrize("family", HOSTS)
def test_the_transports_have_asyncios_information(family: int) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        server = Plain()
        async with serving(lambda: server, family) as (host, port):
            transport, client = await loop.create_connection(Plain, host, port)
            await soon(lambda: server.transport is not None)
            ends = transport, server.transport
            names = [[end.get_extra_info(name) for name in ("sockname", "peername")] for end in ends]
            assert names[0] == names[1][::-1]
            assert names[0][1][:2] == (host, port)
            assert transport.get_protocol() is client
            infos = []
            for end in ends:
                sock = end.get_extra_info("socket")
                assert end.get_extra_info("sockname") == sock.getsockname()
                assert isinstance(end, asyncio.Transport)
                nodelay = bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                blocking, inheritable = os.get_blocking(sock.fileno()), os.get_inheritable(sock.fileno())
                infos.append([sock.family, sock.type, sock.proto, sock.gettimeout(), nodelay, blocking])
                infos[-1] += [inheritable, len(end.get_extra_info("sockname")), end.is_closing()]
            transport.close()
            await soon(lambda: client.lost() and server.lost())
            return infos, client.seen, server.seen

    same(scenario)


@pytest.mark.parametrize("host", ["1.2.3.4", "10.20.30.40", "0.0.0.0", "127.100.200.255", "127.0.0.9"])
def test_an_address_is_written_as_the_system_writes_it(host: str) -> None:
    async def main() -> None:
        with socket.socket() as listener:
            listener.bind((host if host.startswith("127.") else "127.0.0.1", 0))
            listener.listen()
            transport, _ = await asyncio.get_running_loop().create_connection(Plain, *listener.getsockname())
            sock = transport.get_extra_info("socket")
            assert transport.get_extra_info("peername") == sock.getpeername() == listener.getsockname()
            assert transport.get_extra_info("sockname") == sock.getsockname()
            transport.abort()
            await turns()

    on("pyepoll", main)


REFUSED: dict[str, Any] = {
    "refused": ("127.0.0.1", None),
    "refused, IPv6": ("::1", None),
    "broadcast": ("255.255.255.255", None),
    "port 0": ("127.0.0.1", 0),
    "negative port": ("127.0.0.1", -1),
    "large port": ("127.0.0.1", 70000),
    "very large port": ("127.0.0.1", 1 << 70),
    "a bool": ("127.0.0.1", True),
    "a text": ("127.0.0.1", "1"),
    "no port": ("127.0.0.1", ...),
    "no host": (None, 1),
    "nothing": (None, ...),
    "bytes": (b"127.0.0.1", 1),
    "a null": ("127.0.0.1\0", 1),
    "a short address": ("127.1", 1),
    "an int": (127, 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_failed_connection_raises_asyncios_exception(case: str) -> None:
    port = closed_port()

    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        host, given = REFUSED[case]
        called: list[Any] = []
        before = fds()
        address = {"host": host} if given is ... else {"host": host, "port": port if given is None else given}
        try:
            async with asyncio.timeout(20):
                await loop.create_connection(lambda: called.append(1), **address)
        except Exception as error:
            seen = error_text(error), getattr(error, "errno", None), getattr(error, "strerror", None)
            assert error.__context__ is None or case in ("a text", "an int")
        await turns()
        assert called == []
        assert len(fds()) <= len(before)
        return seen

    same(scenario)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in CPython 3.12")
def test_all_errors_are_raised_as_a_group() -> None:
    port = closed_port()

    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        try:
            await loop.create_connection(Plain, "127.0.0.1", port, all_errors=True)
        except ExceptionGroup as group:
            return str(group), [error_text(error) for error in group.exceptions]

    assert same(scenario) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "255.255.255.255"])
def test_a_failed_connection_leaves_no_cycle(host: str) -> None:
    """The exception, with its traceback, does not keep its arguments."""
    port = closed_port()

    class Factory:
        def __call__(self) -> Plain:
            raise AssertionError

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        factory = Factory()
        kept = weakref.ref(factory)
        try:
            await loop.create_connection(factory, host, port)
        except OSError as error:
            assert error.errno != 0
        del factory
        await turns()
        return kept()

    gc.collect()
    gc.disable()
    try:
        assert on("pyepoll", main) is None
    finally:
        gc.enable()


@pytest.mark.parametrize("count", range(6))
def test_cancelling_after_some_turns_is_as_in_asyncio(count: int) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        client = Plain()
        with listening() as address:
            before = fds()
            task = loop.create_task(loop.create_connection(lambda: client, *address))
            await turns(count)
            cancelled = task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(result, tuple):
                result[0].abort()
            await turns()
            assert len(fds()) == len(before)
            return cancelled, isinstance(result, asyncio.CancelledError), client.seen

    assert usual(scenario, "pyepoll") == usual(scenario, "asyncio")


def test_cancelling_a_connection_under_way_leaves_no_writer() -> None:
    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        with full() as address:
            before, watched = fds(), len(loop._selector.get_map())
            task = loop.create_task(loop.create_connection(Plain, *address))
            await turns()
            during = len(loop._selector.get_map()) - watched
            task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            await turns()
            assert len(fds()) == len(before)
            return during, type(result), len(loop._selector.get_map()) - watched, task.cancelled()

    assert same(scenario) == (1, asyncio.CancelledError, 0, True)


def test_a_connection_that_takes_time_is_made() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with socket.socket() as listener, socket.socket() as first:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            first.connect(listener.getsockname())
            task = loop.create_task(loop.create_connection(Plain, *listener.getsockname()))
            await turns()
            done = task.done()
            listener.accept()[0].close()  # Room for one more: the kernel asks again within a second or so.
            async with asyncio.timeout(20):
                transport, protocol = await task
            transport.abort()
            await soon(protocol.lost)
            return done, protocol.seen

    assert on("pyepoll", main) == (False, ["made", ("lost", None)])


@pytest.mark.parametrize("kind", ["selector", "_remove_writer"])
def test_a_connection_that_takes_time_leaves_no_writer(kind: str) -> None:
    """The task that waits removes it, however the loop does that."""

    class Replaced(aio.EventLoop):
        def _remove_writer(self, fd: Any) -> bool:
            return bool(super()._remove_writer(fd))

    async def connect(loop: Any, address: tuple[str, int]) -> Any:
        task = loop.create_task(loop.create_connection(Plain, *address))
        await turns()
        (key,) = [key for key in loop._selector.get_map().values() if key.data[1] is not None]
        key.data[1]._run()  # As if the connection were made.
        transport, _ = await task
        await turns()  # Reading begins.
        assert (
            loop._selector.get_key(transport.get_extra_info("socket").fileno()).events == selectors.EVENT_READ
        )
        transport.abort()

    loop: Any = Replaced() if kind == "_remove_writer" else aio.EventLoop(selectors.SelectSelector())
    with contextlib.closing(loop), full() as address:
        loop.set_debug(False)
        loop.run_until_complete(connect(loop, address))


@pytest.mark.parametrize("where", ["subclass", "instance", "class"])
def test_a_connection_is_made_in_turns_that_another_runs(where: str, monkeypatch: Any) -> None:
    """A `_run_once` that knows the queue, the timers and the selector only, as nest_asyncio's."""
    stock: Any = asyncio.SelectorEventLoop
    factory: Any = aio.EventLoop
    if where == "subclass":
        factory = type("Sub", (aio.EventLoop,), {"_run_once": stock._run_once})
    elif where == "class":
        monkeypatch.setattr(aio.EventLoop, "_run_once", stock._run_once)
    loop = factory()
    if where == "instance":
        loop._run_once = functools.partial(stock._run_once, loop)

    async def connect(address: tuple[str, int]) -> None:
        async with asyncio.timeout(20):
            transport, _ = await loop.create_connection(Plain, *address)
        transport.abort()

    with contextlib.closing(loop), listening() as address:
        loop.set_debug(False)
        loop.run_until_complete(connect(address))


@pytest.mark.parametrize("when", ["in the turn", "between two runs"])
def test_a_connection_is_made_if_the_turns_are_replaced_meanwhile(when: str) -> None:
    def replace() -> None:
        loop._run_once = functools.partial(asyncio.BaseEventLoop._run_once, loop)  # type: ignore[attr-defined]

    async def connect(address: tuple[str, int]) -> None:
        transport, _ = await loop.create_connection(Plain, *address)
        transport.abort()

    loop: Any = aio.EventLoop()
    with contextlib.closing(loop), listening() as address:
        loop.set_debug(False)
        task = loop.create_task(connect(address))
        loop.call_soon(replace if when == "in the turn" else loop.stop)
        if when != "in the turn":
            loop.run_forever()
            replace()
        loop.run_until_complete(asyncio.wait_for(task, 20))


async def by_transport(loop: asyncio.AbstractEventLoop, address: Any) -> Callable[[], object]:
    transport, _ = await loop.create_connection(Plain, *address)
    return transport.abort


async def by_socket(loop: asyncio.AbstractEventLoop, address: Any) -> Callable[[], object]:
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, address)
    return sock.close


# With sockets alone, connections may wait in the queue of the listener, which has room for three.
@pytest.mark.parametrize(("connect", "later"), [(by_transport, 0), (by_socket, 3)])
def test_connecting_to_a_server_of_the_same_loop_lets_it_accept(connect: Any, later: int) -> None:
    """Otherwise the queue of its listener gets full, and the kernel tries again only after a second."""

    async def scenario() -> bool:
        loop = asyncio.get_running_loop()
        accepted: list[Plain] = []

        def make() -> Plain:
            accepted.append(Plain())
            return accepted[-1]

        server = await loop.create_server(make, "127.0.0.1", 0, backlog=3)
        in_time = True
        for count in range(10):
            close = await connect(loop, server.sockets[0].getsockname())
            in_time = in_time and len(accepted) >= count - later
            close()
        await soon(lambda: len(accepted) == 10 and all(each.lost() for each in accepted))
        server.close()
        await server.wait_closed()
        return in_time

    assert same(scenario)


CLIENT_STEPS = [
    "_connect_sock",
    "_create_connection_transport",
    "_ensure_resolved",
    "_make_socket_transport",
    "_sock_connect_cb",
    "create_future",
    "sock_connect",
]
SERVER_STEPS = ["_accept_connection2", "_make_socket_transport", "create_task"]
STEPS = [("client", step) for step in CLIENT_STEPS] + [("server", step) for step in SERVER_STEPS]


@pytest.mark.parametrize("where", ["subclass", "instance", "asyncio"])
@pytest.mark.parametrize(("end", "step"), STEPS)
def test_a_step_that_is_replaced_is_called(
    end: str, step: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def counting(function: Any, name: str = step) -> Any:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            calls.append(True)
            return function(*args, **kwargs)

        return replaced

    ours: Any = aio.EventLoop
    if where == "asyncio":
        if step in ("_make_socket_transport", "sock_connect"):
            pytest.skip("our class has its own")
        owner = next(each for each in asyncio.SelectorEventLoop.__mro__ if step in vars(each))
        monkeypatch.setattr(owner, step, counting(vars(owner)[step]))
    factory: Any = ours
    if where == "subclass":
        method = getattr(ours, step)
        factory = type("Sub", (ours,), {step: lambda self, *a, **k: counting(method)(self, *a, **k)})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if where == "instance":
            setattr(loop, step, counting(getattr(loop, step)))
        server = Plain()
        if end == "client":
            with listening() as address:
                calls.clear()
                transport, protocol = await loop.create_connection(Plain, *address)
                assert calls
                transport.abort()
                await soon(protocol.lost)
            return
        async with serving(lambda: server) as address:
            with socket.create_connection(address):
                calls.clear()
                await soon(lambda: server.transport is not None)
                assert calls
            await soon(server.lost)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_accepted_connections_have_the_tasks_of_a_task_factory() -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        made: list[str] = []

        def factory(loop: Any, coro: Any, **options: Any) -> Any:
            made.append(coro.__qualname__.rpartition(".")[2])
            return asyncio.Task(coro, loop=loop, **options)

        server = Plain()
        loop.set_task_factory(factory)
        async with serving(lambda: server) as address:
            made.clear()
            with socket.create_connection(address):
                await soon(lambda: server.transport is not None)
            await soon(server.lost)
        loop.set_task_factory(None)
        return made

    assert same(scenario) == ["_accept_connection2"]


class Sockets(socket.socket):
    pass


def test_a_replaced_socket_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> str:
        with listening() as address:
            monkeypatch.setattr(socket, "socket", Sockets)
            transport: Any
            transport, protocol = await asyncio.get_running_loop().create_connection(Plain, *address)
            monkeypatch.undo()
            name = type(transport._sock).__name__
            transport.abort()
            await soon(protocol.lost)
            return name

    assert on("pyepoll", main) == "Sockets"


@pytest.mark.parametrize("method", ["connect", "setblocking", "close", "_real_close", "__init__"])
def test_a_replaced_method_of_sockets_is_called(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listening() as address:
            calls: list[str] = []
            real = getattr(socket.socket, method)

            def replaced(*args: Any, **kwargs: Any) -> Any:
                calls.append(method)
                return real(*args, **kwargs)

            for _ in range(2):
                monkeypatch.setattr(socket.socket, method, replaced)
                transport, protocol = await loop.create_connection(Plain, *address)
                transport.abort()
                await soon(protocol.lost)
                monkeypatch.undo()
                assert calls
                calls.clear()
                transport, protocol = await loop.create_connection(Plain, *address)
                transport.abort()
                await soon(protocol.lost)
                assert not calls

    on("pyepoll", main)


def test_a_replaced_socket_module_of_asyncios_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        asked = False

        def __getattr__(self, name: str) -> Any:
            self.asked = True
            return getattr(socket, name)

    module = Module()

    async def main() -> None:
        with listening() as address:
            monkeypatch.setattr("asyncio.base_events.socket", module)
            transport, protocol = await asyncio.get_running_loop().create_connection(Plain, *address)
            monkeypatch.undo()
            assert module.asked
            transport.abort()
            await soon(protocol.lost)

    on("pyepoll", main)


_events: list[Any] | None = None
_refused = ""


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == _refused:
        raise PermissionError(event)
    if _events is not None and event.startswith("socket."):
        _events.append((event, *args[1:]))


@functools.cache
def add_hook() -> None:
    sys.addaudithook(_hook)  # For good: there is no way to remove it.


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    add_hook()
    return lambda name, value: monkeypatch.setattr(sys.modules[__name__], name, value)


@pytest.mark.parametrize("family", HOSTS)
def test_audit_hooks_are_called_as_by_asyncio(family: int, audit: Any, monkeypatch: Any) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        with listening(family) as address:
            events: list[Any] = []
            audit("_events", events)
            transport, protocol = await loop.create_connection(Plain, *address)
            monkeypatch.undo()
            transport.abort()
            await soon(protocol.lost)
            return [(event, *(args[:3])) if "new" in event else (event,) for event, *args in events]

    assert len(same(scenario)) == 2


@pytest.mark.parametrize("event", ["socket.__new__", "socket.connect"])
def test_what_an_audit_hook_raises_is_raised(event: str, audit: Any, monkeypatch: Any) -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        with listening() as address:
            before = fds()
            audit("_refused", event)
            try:
                await loop.create_connection(Plain, *address)
            except PermissionError as error:
                monkeypatch.undo()
                assert len(fds()) == len(before)
                return error_text(error)

    assert same(scenario) is not None


@pytest.mark.filterwarnings("error")
def test_a_failing_protocol_factory_leaves_no_socket() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listening() as address:
            before = fds()
            with pytest.raises(ZeroDivisionError):
                await loop.create_connection(lambda: 1 / 0, *address)
            assert len(fds()) == len(before)
        await turns()

    on("pyepoll", main)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio leaves the socket to the garbage collector.
def test_a_failing_protocol_factory_of_a_server_is_reported_as_in_asyncio(debug: bool) -> None:
    async def scenario() -> Any:
        seen = complaints()
        made: list[Plain] = []

        def factory() -> Plain:
            made.append(Plain())
            if len(made) < 3:
                raise ZeroDivisionError
            return made[-1]

        async with serving(factory) as address:
            clients = [socket.create_connection(address) for _ in range(3)]
            await soon(lambda: len(made) == 3 and made[-1].transport is not None)
            for client in clients:
                client.close()
            await soon(made[-1].lost)
        return [(each["message"], error_text(each["exception"])) for each in seen]

    assert len(same(scenario, debug=debug)) == (2 if debug else 0)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_exception_of_a_factory_that_ends_the_program_leaves_the_loop(error: type[BaseException]) -> None:
    def factory() -> Any:
        raise error("from the factory")

    loop = aio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname()):
        with pytest.raises(error, match="from the factory"):
            loop.run_until_complete(asyncio.sleep(20))
    server.close()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_accepted_connections_do_not_share_a_context() -> None:
    """A variable that one sets is not seen by another; the listener's context is seen by all."""

    async def scenario() -> Any:
        seen: list[tuple[str, str]] = []
        NAME.set("listener")

        class Sets(Plain):
            def __init__(self) -> None:
                super().__init__()
                self.before = NAME.get()
                NAME.set(f"connection {len(seen)}")

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                seen.append((self.before, NAME.get()))

            def data_received(self, data: bytes) -> None:
                seen.append(("data", NAME.get()))
                self.transport.close()

        async with serving(Sets) as address:
            NAME.set("caller")
            for count in range(2):
                with socket.create_connection(address) as client:
                    client.send(b"data")
                    await soon(lambda count=count: len(seen) == 2 * count + 2)  # type: ignore[misc]
        await turns()
        return seen, NAME.get()

    same(scenario)


def test_what_a_protocol_factory_sets_is_seen_as_in_asyncio() -> None:
    """From 3.15 on, not by a client's protocol: its context is copied before the factory is called."""

    class Noting(Plain):
        def __init__(self) -> None:
            super().__init__()
            NAME.set("of the factory")

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.seen.append(NAME.get())

        def data_received(self, data: bytes) -> None:
            self.seen.append(NAME.get())

    async def scenario() -> Any:
        NAME.set("of the caller")
        servers: list[Noting] = []

        def make() -> Noting:
            servers.append(Noting())
            return servers[-1]

        async with serving(make) as address:
            transport, client = await asyncio.get_running_loop().create_connection(Noting, *address)
            transport.write(b"data")
            await soon(lambda: len(servers) == 1 and len(servers[0].seen) == 3)
            servers[0].transport.write(b"data")
            await soon(lambda: len(client.seen) == 3)
            transport.abort()
            await soon(client.lost)
            await soon(servers[0].lost)
            return client.seen[:3], servers[0].seen[:3]

    same(scenario)


def test_an_fd_is_reused_while_the_old_transport_is_kept() -> None:
    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        kept = []
        with listening() as address:
            for _ in range(4):
                transport, protocol = await loop.create_connection(Plain, *address)
                kept.append((transport, transport._sock_fd))
                assert loop._transports[transport._sock_fd] is transport
                transport.abort()
                await soon(protocol.lost)
        numbers = {fd for _, fd in kept}
        del transport, protocol
        kept.clear()
        gc.collect()
        return len(numbers), [fd for fd in numbers if fd in loop._transports]

    assert same(scenario) == (1, [])


def test_an_fd_that_an_open_transport_uses_is_refused() -> None:
    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        with listening() as address:
            transport, _ = await loop.create_connection(Plain, *address)
            transport.pause_reading()
            transport._sock.close()
            try:
                other, protocol = await loop.create_connection(Plain, *address)
            except RuntimeError as error:
                other, text = None, plain(error)
            else:
                text = "none"
                other.abort()
                await soon(protocol.lost)
            transport.abort()
            await turns()
            del transport
            return re.sub(r"\d+", "N", text)

    if sys.version_info >= (3, 12):
        assert "File descriptor N is used by" in same(scenario)


def test_a_transport_is_found_although_the_transports_are_iterated_over() -> None:
    """Before CPython 3.14, removals wait until the iteration ends."""

    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        with listening() as address:
            first, protocol = await loop.create_connection(Plain, *address)
            second, _ = await loop.create_connection(Plain, *address)
            items = loop._transports.items()
            next(iter_ := iter(items))
            first.abort()
            await soon(protocol.lost)
            del first
            gc.collect()
            third, _ = await loop.create_connection(Plain, *address)
            del iter_
            found = loop._transports[third._sock_fd] is third, loop._transports[second._sock_fd] is second
            second.abort()
            third.abort()
            await turns()
            return found

    assert same(scenario) == (True, True)


def test_a_file_of_the_socket_keeps_it_open() -> None:
    async def scenario() -> Any:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with far, near.makefile("rwb", buffering=0) as file:
            transport, protocol = await loop.create_connection(Plain, sock=near)
            transport.close()
            await soon(protocol.lost)
            file.write(b"data")
            return far.recv(10), near.fileno() >= 0

    assert same(scenario) == (b"data", True)


@pytest.mark.parametrize("change", ["stop", "debug", "deque"])
def test_a_connection_made_at_once_is_completed_after(change: str) -> None:
    async def connect(address: tuple[str, int]) -> Any:
        transport, protocol = await asyncio.get_running_loop().create_connection(Plain, *address)
        transport.abort()
        await soon(protocol.lost)
        return protocol.seen

    loop: Any = aio.new_event_loop()
    with listening() as address:
        task = loop.create_task(connect(address))
        if change == "stop":
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert not task.done()
        elif change == "debug":
            loop.call_soon(loop.set_debug, True)
        else:
            loop.call_soon(lambda: setattr(loop, "_ready", collections.deque(loop._ready)))
        assert loop.run_until_complete(task) == ["made", ("lost", None)]
    loop.close()


def test_a_connection_made_at_once_waits_for_a_turn_that_can_queue_it() -> None:
    """The queue of ready handles is the program's own, and raises once."""

    class Refuses(collections.deque[Any]):
        refused = 0

        def append(self, handle: Any) -> None:
            if "_set_result" in getattr(handle._callback, "__name__", "") and not self.refused:
                self.refused += 1
                raise MemoryError
            super().append(handle)

    loop: Any = aio.new_event_loop()
    with contextlib.closing(loop), listening() as address:
        ready = loop._ready = Refuses()
        task = loop.create_task(loop.create_connection(Plain, *address))
        other = loop.create_task(loop.create_connection(Plain, *address))
        with pytest.raises(MemoryError):
            loop.run_until_complete(asyncio.gather(task, other))
        assert ready.refused == 1
        for each in task, other:
            transport, _ = loop.run_until_complete(asyncio.wait_for(each, 20))
            transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_a_connection_made_at_once_is_freed_with_its_loop() -> None:
    async def connect(address: tuple[str, int]) -> None:
        await asyncio.get_running_loop().create_connection(Plain, *address)

    with listening() as address:
        loop: Any = aio.new_event_loop()
        task = loop.create_task(connect(address))
        loop.call_soon(loop.stop)
        loop.run_forever()
        kept = weakref.ref(loop)
        task._log_destroy_pending = False
        coro = task.get_coro()
        loop.close()
        coro.close()
        del loop, task, coro
        gc.collect()
        assert kept() is None


def test_no_fd_left_is_reported() -> None:
    from support.fds import no_fd_left

    async def scenario() -> Any:
        with listening() as address, no_fd_left():
            try:
                await asyncio.get_running_loop().create_connection(Plain, *address)
            except OSError as error:
                return error.errno

    assert same(scenario) == errno.EMFILE


def test_the_socket_is_closed_while_the_connection_is_under_way() -> None:
    """By a program that found it: the call ends all the same."""

    async def scenario() -> Any:
        loop: Any = asyncio.get_running_loop()
        with full() as address:
            before = set(loop._selector.get_map())
            task = loop.create_task(loop.create_connection(Plain, *address))
            await turns()
            (fd,) = set(loop._selector.get_map()) - before
            with socket.socket(fileno=os.dup(fd)) as other:
                other.shutdown(socket.SHUT_RDWR)
            async with asyncio.timeout(20):
                result = (await asyncio.gather(task, return_exceptions=True))[0]
            return type(result), getattr(result, "errno", None)

    same(scenario)
