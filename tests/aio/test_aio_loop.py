"""pyepoll.aio's loop is a SelectorEventLoop in all that a program can ask of one."""

import asyncio
import errno
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from support.effort import Effort
from support.fds import no_fd_left, open_fds
from support.loops import (
    FACTORIES,
    Plain,
    complaints,
    connection,
    error_text,
    logged,
    on,
    plain,
    receive,
    receive_all,
    same,
    soon,
    turns,
)
from support.processes import run

from pyepoll import aio


def test_the_loop_is_a_selector_event_loop() -> None:
    loop = aio.new_event_loop()
    assert type(loop) is aio.EventLoop
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert type(loop._selector) is aio.LoopSelector
    assert repr(loop) == "<EventLoop running=False closed=False debug=False>"
    loop.close()
    loop.close()
    assert loop.is_closed()


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_a_closed_loop_is_freed_without_the_collector(factory: Callable[[], Any]) -> None:
    """The loop keeps nothing that refers to it, though it made a Future and a Task of its own."""
    gc.collect()
    gc.disable()
    try:
        loop = factory()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        for future in (loop.create_future(), loop.create_future()):
            assert future.get_loop() is loop
        del future
        freed = weakref.ref(loop)
        del loop
        assert freed() is None
    finally:
        gc.enable()


def test_a_transport_of_a_closed_loop_fails_once() -> None:
    """The first call that needs the loop raises; for those that follow, the connection is lost."""

    def outcomes(factory: Callable[[], Any]) -> list[str]:
        loop = factory()
        near, far = socket.socketpair()
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))
        loop.close()
        seen = []
        for call in transport.abort, transport.abort, partial(transport.write, b"late"), transport.close:
            try:
                seen.append(repr(call()))
            except RuntimeError as error:
                seen.append(str(error))
        del call, transport
        gc.collect()
        near.close()
        far.close()
        return seen

    with pytest.warns(ResourceWarning, match="unclosed transport"):
        theirs, ours = map(outcomes, FACTORIES.values())
    assert ours == theirs == ["Event loop is closed", "None", "None", "None"]


@pytest.mark.parametrize(
    "make",
    [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector, selectors.DefaultSelector],
)
def test_the_loop_works_with_any_selector(make: Callable[[], selectors.BaseSelector]) -> None:
    selector = make()
    loop = aio.EventLoop(selector)

    async def main() -> bytes:
        async with connection(seen := Plain()) as (transport, peer):
            transport.write(b"x" * 500_000)
            peer.send(b"data")
            await receive(peer, 500_000)
            await soon(lambda: seen.has(4))
            assert type(transport) is aio.SocketTransport
            return b"".join(what for what in seen.seen if isinstance(what, bytes))

    assert loop.run_until_complete(main()) == b"data"
    loop.close()
    assert selector.get_map() is None or not selector.get_map()


def test_run_uses_our_loop_and_passes_debug() -> None:
    async def main(value: object) -> list[Any]:
        loop = asyncio.get_running_loop()
        assert type(loop) is aio.EventLoop
        return [value, loop.get_debug()]

    assert aio.run(main(1)) == [1, False]
    assert aio.run(main(2), debug=True) == [2, True]
    assert aio.run(main(3), debug=False) == [3, False]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_run_takes_its_debug_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")

    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert aio.run(main())
    assert not aio.run(main(), debug=False)


def test_run_refuses_invalid_arguments() -> None:
    for wrong in (lambda: 1, 7, None, "main"):
        with pytest.raises((ValueError, TypeError), match="coroutine"):
            aio.run(wrong)  # type: ignore[arg-type]

    async def inner() -> None:
        pass

    async def outer() -> str:
        coroutine = inner()
        try:
            with pytest.raises(RuntimeError) as raised:
                aio.run(coroutine)
        finally:
            coroutine.close()
        await asyncio.sleep(0)
        return str(raised.value)

    assert "cannot be called from a running event loop" in aio.run(outer())
    assert "cannot be called from a running event loop" in on("asyncio", outer)


def test_run_raises_what_main_raises() -> None:
    async def main(error: BaseException) -> None:
        raise error

    for error in ZeroDivisionError(), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3):
        with pytest.raises(type(error)):
            aio.run(main(error))


def test_run_cancels_tasks_left_by_main() -> None:
    seen: list[str] = []

    async def lingers() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("cancelled")

    async def generator() -> Any:
        try:
            while True:
                yield 1
        finally:
            seen.append("closed")

    async def main() -> None:
        task = asyncio.create_task(lingers())
        items = generator()
        await anext(items)
        await asyncio.sleep(0)
        main.kept = [task, items]  # type: ignore[attr-defined]

    aio.run(main())
    assert seen == ["cancelled", "closed"]
    del main.kept  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["asyncio", "pyepoll"])
def test_a_loop_without_a_free_fd_raises_emfile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE, and no fd stays open. asyncio's loop that was made in part complains when it goes."""
    monkeypatch.setattr(sys, "unraisablehook", lambda args: None)
    before = open_fds()
    failed = 0
    for spare in range(4):
        with no_fd_left(spare), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                FACTORIES[name]().close()
            except OSError as error:
                failed += error.errno == errno.EMFILE
            gc.collect()
        assert open_fds() == before
    # The epoll, then the pair of sockets.
    assert failed == 3


def test_several_loops_run_one_after_another(effort: Effort) -> None:
    before = open_fds()

    async def main() -> int:
        async with connection(seen := Plain()) as (_, peer):
            peer.send(b"data")
            await soon(lambda: seen.has(4))
        return 4

    for _ in range(effort(30, 1000)):
        assert on("pyepoll", main) == 4
    assert open_fds() == before


def test_two_loops_run_in_turn() -> None:
    """In one thread, each with connections that outlive a run."""

    async def connect() -> tuple[Any, Plain, socket.socket]:
        near, peer = socket.socketpair()
        seen = Plain()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: seen, sock=near)
        return transport, seen, peer

    async def echo(transport: Any, seen: Plain, peer: socket.socket, number: int) -> None:
        data = b"<%d>" % number
        seen.seen.clear()
        peer.send(data)
        await soon(lambda: seen.seen == [data])
        transport.write(data)
        await turns(1)
        assert peer.recv(100) == data

    async def finish(transport: Any, seen: Plain, peer: socket.socket) -> None:
        transport.close()
        peer.close()
        await soon(seen.lost)

    loops = [aio.new_event_loop() for _ in range(2)]
    connections = [loop.run_until_complete(connect()) for loop in loops]
    for number in range(10):
        for loop, made in zip(loops, connections, strict=True):
            loop.run_until_complete(echo(*made, number))
    for loop, made in zip(loops, connections, strict=True):
        loop.run_until_complete(finish(*made))
        loop.close()


def test_readers_and_writers_run_until_removed() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        a.setblocking(False)
        said: list[Any] = []
        with a, b:
            loop.add_reader(a, lambda: said.append(("read", a.recv(10))))
            loop.add_writer(a.fileno(), lambda: said.extend(["write", loop.remove_writer(a)]))
            b.send(b"1")
            await soon(lambda: len(said) == 3)
            loop.add_reader(a.fileno(), lambda word: said.append((word, a.recv(10))), "replaced")
            b.send(b"2")
            await soon(lambda: len(said) == 4)
            said += [loop.remove_reader(a), loop.remove_reader(a), loop.remove_writer(a)]
            b.send(b"3")
            await turns()
            with pytest.raises(ValueError):
                loop.add_reader(-1, print)
            with pytest.raises(ValueError):
                loop.add_reader("a", print)  # type: ignore[arg-type]
        return said

    # Reading comes before writing.
    assert same(scenario) == [("read", b"1"), "write", True, ("replaced", b"2"), True, False, False]


def test_a_callback_can_cancel_another_ready_one() -> None:
    """Both are ready; the first to run removes the other, which then does not run."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(2)]
        ran: list[int] = []

        def ready(number: int) -> None:
            ran.append(number)
            for near, _ in pairs:
                loop.remove_reader(near)

        for number, (near, far) in enumerate(pairs):
            loop.add_reader(near, ready, number)
            far.send(b"1")
        await turns()
        for pair in pairs:
            for sock in pair:
                sock.close()
        return [len(ran)]

    assert same(scenario) == [1]


def test_sock_methods_behave_as_on_asyncio() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            server.setblocking(False)
            client.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(server))
            await loop.sock_connect(client, server.getsockname())
            accepted, _ = await accepting
            with accepted:
                much = bytes(range(256)) * 40_000
                sending = asyncio.create_task(loop.sock_sendall(client, much))
                assert await receive(accepted, len(much)) == much
                await sending
                room = bytearray(10)
                waiting = asyncio.create_task(loop.sock_recv_into(client, room))
                await turns()
                await loop.sock_sendall(accepted, b"data")
                said = [await waiting, bytes(room[:4])]
                with tempfile.TemporaryFile() as file:
                    file.write(much)
                    file.seek(0)
                    sent = asyncio.create_task(loop.sock_sendfile(client, file))
                    assert await receive(accepted, len(much)) == much
                    said.append(await sent)
                cancelled = asyncio.create_task(loop.sock_recv(client, 1))
                await turns()
                cancelled.cancel()
                (error,) = await asyncio.gather(cancelled, return_exceptions=True)
                said.append(type(error).__name__)
        return said

    assert same(scenario) == [4, b"data", 256 * 40_000, "CancelledError"]


@pytest.mark.parametrize("fallback", [True, False])
def test_sendfile_keeps_the_order_of_writes(fallback: bool) -> None:
    """Of a transport; a write meanwhile is refused, and data from before and after arrives in order."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        much = bytes(range(256)) * 20_000
        async with connection(seen := Plain(), tcp=True) as (transport, peer):
            reader = asyncio.create_task(receive_all(peer))
            with tempfile.TemporaryFile() as file:
                file.write(much)
                file.flush()
                if fallback:
                    transport._sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK
                transport.write(b"<")
                task = asyncio.create_task(loop.sendfile(transport, file, 1, None))
                await turns(2)
                refused = []
                for data in b"no", bytearray(b"no"):
                    try:
                        transport.write(data)
                    except RuntimeError as error:
                        refused.append(str(error))
                assert await task == len(much) - 1
                peer_sent = peer.send(b"data")
                transport.write(b">")
                await soon(lambda: seen.has(peer_sent))
                transport.write_eof()
                data = await reader
                if not fallback:
                    assert data == b"<" + much[1:] + b">"
            return [refused, len(data), seen.seen]

    refused, _, _ = same(scenario)
    assert fallback or refused == ["unable to write; sendfile is in progress"] * 2


def test_datagrams_are_sent_and_received() -> None:
    class Answers(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            seen.append(data)
            if data.islower():
                self.transport.sendto(data.upper(), address)

    seen: list[bytes] = []

    async def scenario() -> list[bytes]:
        seen.clear()
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Answers, local_addr=("127.0.0.1", 0))
        client, _ = await loop.create_datagram_endpoint(
            Answers, remote_addr=server.get_extra_info("sockname")
        )
        client.sendto(b"data")
        await soon(lambda: len(seen) == 2)
        client.close()
        server.abort()
        await turns()
        return seen

    assert same(scenario) == [b"data", b"DATA"]


def test_pipes_are_read_and_written_as_on_asyncio() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        read, write = os.pipe()
        seen = Plain()
        reader, _ = await loop.connect_read_pipe(lambda: seen, open(read, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.Protocol, open(write, "wb", 0))
        writer.write(b"data" * 50_000)
        await soon(lambda: seen.has(200_000))
        writer.close()
        await soon(seen.lost)
        reader.close()
        return [[what if not isinstance(what, bytes) else len(what) for what in seen.seen]]

    assert same(scenario) == [["made", 200_000, "eof", ("lost", None)]]


def test_subprocesses_run_as_on_asyncio() -> None:
    async def scenario() -> list[Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1]); sys.exit(3)",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate(b"0123456789" * 20_000)
        other = await asyncio.create_subprocess_shell("kill -TERM $$")
        return [out[:10], len(out), process.returncode, await other.wait()]

    assert same(scenario) == [b"9876543210", 200_000, 3, -signal.SIGTERM]


def test_signal_handlers_run_until_removed() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        got: list[Any] = []
        loop.add_signal_handler(signal.SIGUSR1, got.append, "USR1")
        for count in range(1, 4):
            os.kill(os.getpid(), signal.SIGUSR1)
            await soon(lambda count=count: len(got) >= count)  # type: ignore[misc]
        got.append(loop.remove_signal_handler(signal.SIGUSR1))
        got.append(loop.remove_signal_handler(signal.SIGUSR1))
        return got

    assert same(scenario) == ["USR1"] * 3 + [True, False]


def test_a_signal_ends_the_loops_wait() -> None:
    async def scenario() -> list[str]:
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, got.set)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        await asyncio.wait_for(got.wait(), 20)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGALRM)
        return ["got"]

    assert same(scenario) == ["got"]


@pytest.mark.parametrize("where", ["aio.run", "asyncio.Runner"])
def test_interrupt_cancels_main_and_raises_keyboard_interrupt(where: str) -> None:
    """Ctrl-C cancels main, which cleans up; then it is a KeyboardInterrupt."""
    said = run(
        f"""
        import asyncio, os, signal, threading
        from pyepoll import aio

        signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell ignores it in the background.

        async def main():
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("cancelled")
                raise

        try:
            if {where!r} == "aio.run":
                aio.run(main())
            else:
                with asyncio.Runner(loop_factory=aio.new_event_loop) as runner:
                    runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert said.split() == ["cancelled", "interrupted"]


def test_a_policy_can_set_the_loop() -> None:
    """As libraries that know nothing of loop factories set a loop."""
    said = run(
        """
        import asyncio, warnings
        from pyepoll import aio
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            _loop_factory = staticmethod(aio.new_event_loop)

        asyncio.set_event_loop_policy(Policy())
        async def main():
            return type(asyncio.get_running_loop()).__module__
        print(asyncio.run(main()))
        """
    )
    assert said.split() == ["pyepoll.aio"]


def test_debug_mode_reports_slow_callbacks() -> None:
    async def scenario() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.01

        class Slow(Plain):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                time.sleep(0.02)

        with logged() as log:
            async with connection(seen := Slow()) as (_, peer):
                peer.send(b"data")
                await soon(lambda: seen.has(4))
                await turns()
        return log

    for name in "asyncio", "pyepoll":
        (line,) = [line for line in on(name, scenario, debug=True) if "_read_ready" in line]
        assert line.startswith("Executing <Handle SocketTransport._read_ready()"), line
        assert " took 0." in line


def test_debug_mode_refuses_calls_from_another_thread(pool: ThreadPoolExecutor) -> None:
    async def scenario() -> list[str | None]:
        loop = asyncio.get_running_loop()

        def call() -> str | None:
            try:
                loop.call_soon(print)
            except RuntimeError as error:
                return error_text(error)
            return None

        return [await loop.run_in_executor(pool, call)]

    (said,) = same(scenario, debug=True)
    assert said
    assert "Non-thread-safe operation" in said


def test_call_soon_threadsafe_keeps_order_and_loses_none(effort: Effort) -> None:
    """While connections are busy: none is lost, each comes in its thread's order."""
    count, threads = effort(300, 20_000), 4

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        came: list[list[int]] = [[] for _ in range(threads)]

        def call(number: int) -> None:
            for turn in range(count):
                loop.call_soon_threadsafe(came[number].append, turn)

        async with connection(seen := Plain()) as (transport, peer):
            workers = [threading.Thread(target=call, args=[number]) for number in range(threads)]
            for worker in workers:
                worker.start()
            sent = 0
            while any(len(turns) < count for turns in came):
                peer.send(b"data")
                sent += 4
                transport.write(b"data")
                await receive(peer, 4)
                await soon(lambda: seen.has(sent))  # noqa: B023
            for worker in workers:
                worker.join()
        assert came == [list(range(count))] * threads
        return [await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()]

    assert same(scenario) == [True]


def test_getaddrinfo_and_getnameinfo_answer_as_on_asyncio() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        name = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        return [found, name]

    assert same(scenario)[1] == ("127.0.0.1", "80")


def test_exceptions_of_callbacks_are_reported() -> None:
    async def scenario() -> list[Any]:
        complained = complaints()
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:

            def fail() -> None:
                loop.remove_writer(a)
                raise ZeroDivisionError("on purpose")

            loop.add_writer(a, fail)
            loop.call_soon(lambda: 1 / 0)
            await soon(lambda: len(complained) == 2)
        return sorted(
            (plain(context["message"])[:21], error_text(context["exception"]), sorted(context))
            for context in complained
        )

    same(scenario)


def test_calls_after_close_raise_as_on_asyncio() -> None:
    def words(loop: Any) -> list[str | None]:
        loop.close()
        said: list[str | None] = []
        calls: list[Callable[[], object]] = [
            lambda: loop.call_soon(print),
            lambda: loop.call_later(1, print),
            lambda: loop.add_reader(0, print),
            lambda: loop.run_forever(),
            lambda: loop.add_signal_handler(signal.SIGUSR1, print),
        ]
        for call in calls:
            try:
                call()
                said.append(None)
            except Exception as error:
                said.append(error_text(error))
        return said

    assert words(aio.new_event_loop()) == words(asyncio.SelectorEventLoop())


def test_reload_keeps_live_transports_working() -> None:
    """The module executed again, while earlier transports are open."""
    said = run(
        """
        import asyncio, importlib, socket
        from pyepoll import aio

        async def main():
            a, b = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            importlib.reload(aio)
            transport.write(b"data")
            transport.write(bytearray(b"more"))
            await asyncio.sleep(0)
            print(b.recv(8).decode())
            transport.close()
            b.close()
            await asyncio.sleep(0.01)

        for _ in range(2):
            aio.run(main())
        """
    )
    assert said.split() == ["datamore"] * 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython 3.11 has no dict watchers")
def test_module_that_was_freed_watches_no_dict() -> None:
    """The next watcher gets the same id: it would be called for dicts that it does not watch."""
    run(
        """
        import asyncio.base_events, ctypes, gc, importlib.util, time, weakref
        import pyepoll

        api = ctypes.pythonapi
        events = []
        call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, *[ctypes.c_void_p] * 3)
        watcher = call(lambda *event: events.append(event) or 0)
        spec = importlib.util.find_spec("pyepoll._epoll")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module._load_aio()
        freed = weakref.ref(module)
        del module
        gc.collect()
        assert freed() is None
        number = api.PyDict_AddWatcher(watcher)
        try:
            time.anything = asyncio.base_events.anything = 1
        finally:
            api.PyDict_ClearWatcher(number)
        assert events == []
        """
    )
