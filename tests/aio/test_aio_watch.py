"""pyepoll.aio.watch: any event of any file, in any event loop."""

import asyncio
import contextlib
import copy
import ctypes
import gc
import importlib.util
import os
import pickle
import socket
import sys
import warnings
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.fds import Pipe, open_fds
from support.guard import started
from support.loops import FACTORIES, soon, tcp_pair, turns
from support.processes import begin, end, fork, run

from pyepoll import Event, aio

T = TypeVar("T")
MOUNTS = Path("/proc/self/mounts")


def uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return loop


LOOPS: dict[str, Any] = {**FACTORIES, "uvloop": uvloop}

if importlib.util.find_spec("uvloop") is not None:
    uvloop().close()  # The first one opens a pipe for the signals of all, which stays.


@pytest.fixture(params=LOOPS)
def factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    made: Callable[[], asyncio.AbstractEventLoop] = LOOPS[request.param]
    return made


Execute = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def execute(factory: Callable[[], asyncio.AbstractEventLoop]) -> Execute:
    """Run a coroutine in each kind of loop, for at most 20 seconds."""

    async def limited(main: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(20):
            return await main

    def execute(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(limited(main))

    return execute


async def is_quiet(events: aio.watch) -> bool:
    """Whether the watch reports nothing within a few turns of the loop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(events)
            return False
    return True


def forget(events: list[aio.watch]) -> None:
    events.clear()
    gc.collect()


def count_polls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note each look that a watch takes at its file."""
    looks: list[int] = []
    real = aio.watch._look

    def look(self: aio.watch) -> None:
        looks.append(1)
        real(self)

    monkeypatch.setattr(aio.watch, "_look", look)
    return looks


# Reports.


def test_end_of_the_stream_while_reading_is_paused(execute: Execute) -> None:
    """Unread data does not wake the watch, and does not hide the end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        protocol = asyncio.Protocol()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        transport.pause_reading()
        fd = transport.get_extra_info("socket").fileno()
        async with aio.watch(fd, Event.RDHUP) as events:
            peer.send(b"unread")
            assert await is_quiet(events)
            peer.shutdown(socket.SHUT_WR)
            assert await anext(events) == Event.RDHUP
        transport.abort()
        peer.close()
        await turns()

    execute(main())


def test_reset_is_reported_unasked(execute: Execute) -> None:
    async def main() -> None:
        a, b = tcp_pair()
        with a:
            async with aio.watch(a, 0) as events:
                b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                b.close()
                assert await anext(events) == Event.ERR | Event.HUP

    execute(main())


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
def test_out_of_band_data(execute: Execute, edge: Event) -> None:
    async def main() -> None:
        a, b = tcp_pair()
        with a, b:
            async with aio.watch(a, Event.PRI | edge) as events:
                for byte in b"!", b"?":
                    b.send(b"ordinary")
                    assert await is_quiet(events)
                    b.send(byte, socket.MSG_OOB)
                    assert await anext(events) == Event.PRI
                    assert a.recv(1, socket.MSG_OOB) == byte
                    assert await is_quiet(events)

    execute(main())


def test_level_triggered_reports_until_it_is_read(execute: Execute) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.read, Event.IN) as events:
                os.write(pipe.write, b"ab")
                seen = []
                async for event in events:
                    assert event is Event.IN
                    seen.append(os.read(pipe.read, 1))
                    if len(seen) == 2:
                        break
                assert seen == [b"a", b"b"]
                assert await is_quiet(events)
                os.write(pipe.write, b"c")
                assert await anext(events) == Event.IN

    execute(main())


def test_edge_triggered_reports_each_change_once(execute: Execute) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            os.write(pipe.write, b"a")
            async with aio.watch(pipe.read, Event.IN | Event.ET) as events:
                assert await anext(events) == Event.IN
                assert await is_quiet(events)
                os.write(pipe.write, b"b")
                assert await anext(events) == Event.IN
                assert await is_quiet(events)
                os.write(pipe.write, b"c")
                pipe.close(pipe.write)
                await turns()
                assert await anext(events) == Event.IN | Event.HUP

    execute(main())


def test_edges_of_a_slow_consumer_are_one_event(execute: Execute) -> None:
    """They are joined, and none is lost."""

    async def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            async with aio.watch(a, Event.IN | Event.RDHUP | Event.ET) as events:
                b.send(b"x")
                await turns()
                b.shutdown(socket.SHUT_WR)
                await turns()
                assert await anext(events) == Event.IN | Event.RDHUP
                assert await is_quiet(events)

    execute(main())


def test_slow_consumer_does_not_spin(execute: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ready file is looked at once for each event that is asked for, whatever the consumer does between."""
    looks = count_polls(monkeypatch)

    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            os.write(pipe.write, b"x")
            async with aio.watch(pipe.read, Event.IN) as events:
                for _ in range(3):
                    assert await anext(events) == Event.IN
                    await asyncio.sleep(0.02)
                    await turns(20)
                assert len(looks) == 3
            async with aio.watch(pipe.read, Event.IN | Event.ET) as events:
                await asyncio.sleep(0.02)
                await turns(20)
                assert len(looks) == 4

    execute(main())


def test_busy_file_leaves_turns_to_others(execute: Execute) -> None:
    """A consumer that never awaits anything else cannot keep the loop from its other tasks."""

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.write, Event.OUT) as events:
                for _ in range(100):
                    assert await anext(events) == Event.OUT
        ticker.cancel()
        assert ticks >= 100

    execute(main())


# Files that report a change to the first poll alone: the loop polls before the watch can.


def unshare_mounts() -> None:
    """Give this process mounts of its own; PermissionError where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x1000_0000 | 0x0002_0000) != 0:  # CLONE_NEWUSER, CLONE_NEWNS
        raise PermissionError(ctypes.get_errno(), "unshare")


def change_mounts(directory: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", directory.encode(), b"tmpfs", 0, None) != 0:
        raise PermissionError(ctypes.get_errno(), "mount")
    libc.umount2(directory.encode(), 2)


def in_own_mounts(program: Callable[[], object]) -> None:
    def child() -> None:
        try:
            unshare_mounts()
        except PermissionError:
            os._exit(77)
        program()

    report = end(*begin(child))
    if "0x4d00" in report:
        pytest.skip("no mounts of its own for this process")
    assert report == ""


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
def test_a_changed_mount(execute: Execute, edge: Event, tmp_path: Path) -> None:
    async def main() -> None:
        with MOUNTS.open() as mounts:
            async with aio.watch(mounts, Event.PRI | edge) as events:
                assert await is_quiet(events)
                for _ in range(3):
                    change_mounts(os.fspath(tmp_path))
                    assert await anext(events) & Event.PRI
                    assert await is_quiet(events)
                # A change while no task waits is reported by the next wait.
                change_mounts(os.fspath(tmp_path))
                await turns()
                assert await anext(events) & Event.PRI
                # So is a change in the turn in which a wait is cancelled.
                waiting = asyncio.ensure_future(anext(events))
                await turns()
                change_mounts(os.fspath(tmp_path))
                asyncio.get_running_loop().call_soon(waiting.cancel)
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                assert await anext(events) & Event.PRI
                assert await is_quiet(events)

    in_own_mounts(lambda: execute(main()))


def test_two_watches_of_the_mounts_need_a_file_each(execute: Execute, tmp_path: Path) -> None:
    async def main() -> None:
        with MOUNTS.open() as one, MOUNTS.open() as other:
            async with aio.watch(one, Event.PRI) as first, aio.watch(other, Event.PRI) as second:
                change_mounts(os.fspath(tmp_path))
                assert await anext(first) & Event.PRI
                assert await anext(second) & Event.PRI

    in_own_mounts(lambda: execute(main()))


def test_pressure_of_the_processor(execute: Execute) -> None:
    """PSI reports a stall at most once in a window of two seconds."""
    cpu = min(os.sched_getaffinity(0))
    busy = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"

    async def main() -> None:
        with open("/proc/pressure/cpu", "r+b", buffering=0) as pressure:
            try:
                pressure.write(b"some 1 2000000\0")
            except OSError as error:
                pytest.skip(f"no triggers of PSI here: {error}")
            async with aio.watch(pressure, Event.PRI) as events:
                with started([sys.executable, "-c", busy]), started([sys.executable, "-c", busy]):
                    assert await anext(events) & Event.PRI

    if not os.path.exists("/proc/pressure/cpu"):
        pytest.skip("no PSI in this kernel")
    execute(main())


# Several watches, several tasks.


def test_watches_of_one_fd_are_independent(execute: Execute) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            async with (
                aio.watch(a, Event.RDHUP) as one,
                aio.watch(a, Event.RDHUP) as other,
                aio.watch(a, Event.IN) as reads,
            ):
                assert await is_quiet(one)
                b.send(b"x")
                assert await anext(reads) == Event.IN
                assert await is_quiet(other)
                b.shutdown(socket.SHUT_WR)
                assert await anext(one) == Event.RDHUP
                one.close()
                assert await anext(other) == Event.RDHUP

    execute(main())


def test_a_second_task_cannot_wait(execute: Execute) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.read, Event.IN) as events:
                first = asyncio.ensure_future(anext(events))
                await turns()
                with pytest.raises(RuntimeError, match="another task waits"):
                    await anext(events)
                os.write(pipe.write, b"x")
                assert await first == Event.IN

    execute(main())


def test_a_watch_belongs_to_its_loop(execute: Execute) -> None:
    async def other(events: aio.watch) -> None:
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await anext(events)

    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.read, Event.IN) as events:
                await asyncio.to_thread(lambda: asyncio.run(other(events)))

    execute(main())


# Cancellation, and the end.


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
def test_a_wait_can_be_given_up(execute: Execute, edge: Event) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.read, Event.IN | edge) as events:
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(events), 0.01)
                waiting = asyncio.ensure_future(anext(events))
                await turns()
                # The event and the cancellation are in one turn.
                os.write(pipe.write, b"x")
                asyncio.get_running_loop().call_soon(waiting.cancel)
                await asyncio.wait([waiting])
                assert waiting.cancelled()
                assert await anext(events) == Event.IN

    execute(main())


@pytest.mark.parametrize("how", ["close", "aclose", "async with"])
def test_closing_ends_the_iteration(execute: Execute, how: str) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            before = open_fds()
            events = aio.watch(pipe.read, Event.IN)
            ended = []

            async def consume() -> None:
                async for _ in events:
                    raise AssertionError
                ended.append(True)

            task = asyncio.create_task(consume())
            await turns()
            if how == "close":
                events.close()
            elif how == "aclose":
                await events.aclose()
            else:
                async with events:
                    pass
            await task
            assert ended
            events.close()
            await turns()
            assert open_fds() == before
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            assert repr(events) == "<pyepoll.aio.watch closed>"

    execute(main())


def test_break_and_async_with_close_it(execute: Execute) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            before = open_fds()
            for edge in Event(0), Event.ET:
                async with aio.watch(pipe.write, Event.OUT | edge) as events:
                    async for _ in events:
                        break
                with pytest.raises(ZeroDivisionError):
                    async with aio.watch(pipe.write, Event.OUT | edge) as events:
                        raise ZeroDivisionError
                async with contextlib.aclosing(aio.watch(pipe.write, Event.OUT | edge)) as closing:
                    assert await anext(closing) == Event.OUT
            await turns()
            assert open_fds() == before

    execute(main())


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
@pytest.mark.parametrize("where", ["loop", "thread"])
def test_a_forgotten_watch_warns_and_is_closed(execute: Execute, edge: Event, where: str) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            before = open_fds()
            events = [aio.watch(pipe.write, Event.OUT | edge)]
            await anext(events[0])
            await turns()
            reference = weakref.ref(events[0])
            with pytest.warns(ResourceWarning, match=r"unclosed <pyepoll\.aio\.watch fd=\d+ mask=OUT"):
                await asyncio.to_thread(forget, events) if where == "thread" else forget(events)
            assert reference() is None
            if where == "thread":
                # The default executor's threads have fds of their own in no loop, but uvloop's.
                await asyncio.get_running_loop().shutdown_default_executor()
            await soon(lambda: open_fds() == before)

    execute(main())


def test_a_watch_that_the_loop_refuses_leaves_nothing_to_close() -> None:
    """No ResourceWarning for an object that the caller never had."""

    class Refusing(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            before = open_fds()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with pytest.raises(NotImplementedError):
                    aio.watch(pipe.write, Event.OUT | Event.ET)
                gc.collect()
            assert [str(each.message) for each in caught] == []
            assert open_fds() == before

    with contextlib.closing(Refusing()) as loop:
        loop.run_until_complete(main())


def test_a_forgotten_iterator_warns(execute: Execute) -> None:
    """Left by break, without async with."""

    async def first(fd: int) -> None:
        async for _ in aio.watch(fd, Event.OUT | Event.ET):
            break
        gc.collect()

    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            with pytest.warns(ResourceWarning, match="unclosed"):
                await first(pipe.write)
            await turns()

    execute(main())


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
@pytest.mark.parametrize("forgotten", [False, True])
def test_the_loop_is_closed_first(
    factory: Callable[[], asyncio.AbstractEventLoop], edge: Event, forgotten: bool
) -> None:
    async def make(fd: int) -> aio.watch:
        events = aio.watch(fd, Event.OUT | edge)
        assert await anext(events) == Event.OUT
        return events

    with contextlib.closing(Pipe()) as pipe:
        before = open_fds()
        loop = factory()
        events = [loop.run_until_complete(make(pipe.write))]
        loop.close()
        if forgotten:
            with pytest.warns(ResourceWarning, match="unclosed"):
                forget(events)
        else:
            events[0].close()
        assert open_fds() == before


def test_exit_with_an_open_watch() -> None:
    """The interpreter's end has one warning to show, and no exception."""
    words = run(
        """
        import asyncio, os, subprocess, sys
        program = '''
        import asyncio, os
        from pyepoll import Event, aio
        read, write = os.pipe()
        async def main():
            global events
            events = aio.watch(write, Event.OUT | Event.ET)
            await anext(events)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        '''
        done = subprocess.run(
            [sys.executable, "-W", "default", "-c", __import__("textwrap").dedent(program)],
            stderr=subprocess.PIPE, text=True,
        )
        assert done.returncode == 0
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr, done.stderr
        print("fine")
        """
    )
    assert words == "fine\n"


# The file.


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
@pytest.mark.parametrize("kind", ["fd", "object"])
def test_a_wait_for_a_closed_file_is_an_error(execute: Execute, edge: Event, kind: str) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        with b:
            async with aio.watch(a if kind == "object" else a.fileno(), Event.IN | edge) as events:
                assert await is_quiet(events)
                a.close()
                with pytest.raises(OSError, match="Bad file descriptor"):
                    await anext(events)

    execute(main())


def test_an_object_whose_fd_is_reused_is_an_error(execute: Execute) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        async with aio.watch(a, Event.IN) as events:
            fd = a.fileno()
            a.close()
            os.dup2(b.fileno(), fd)
            try:
                with pytest.raises(OSError, match="its file was closed"):
                    await anext(events)
            finally:
                os.close(fd)
        b.close()

    execute(main())


def test_it_keeps_the_file_object(execute: Execute) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        with b:
            kept = weakref.ref(a)
            async with aio.watch(a, Event.IN) as events:
                a.detach()
                del a
                gc.collect()
                assert kept() is not None
            del events
            gc.collect()
            assert kept() is None

    fds = open_fds()
    execute(main())
    for fd in set(open_fds()) - set(fds):
        os.close(fd)


def test_files_that_cannot_be_watched(execute: Execute, closed_fd: int) -> None:
    async def main() -> None:
        with open(__file__) as file, pytest.raises(PermissionError, match="regular file"):
            aio.watch(file, Event.IN)
        with pytest.raises(OSError, match="not open"):
            aio.watch(closed_fd, Event.IN)
        with contextlib.closing(Pipe()) as pipe:
            for mask in Event.ONESHOT, Event.IN | Event.EXCLUSIVE:
                with pytest.raises(ValueError, match="ONESHOT and EXCLUSIVE"):
                    aio.watch(pipe.read, mask)
            with pytest.raises(ValueError, match="unknown bits"):
                aio.watch(pipe.read, 1 << 25)
            wrong: Any = "1"
            with pytest.raises(TypeError):
                aio.watch(pipe.read, wrong)

    execute(main())


def test_it_needs_a_running_loop() -> None:
    before = open_fds()
    with pytest.raises(RuntimeError, match="no running event loop"):
        aio.watch(0, Event.IN)
    assert open_fds() == before


def test_no_copy_and_no_pickle(execute: Execute) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            async with aio.watch(pipe.read, Event.IN | Event.ET) as events:
                assert repr(events) == f"<pyepoll.aio.watch fd={pipe.read} mask=IN|ET>"
                for call in copy.copy, copy.deepcopy, pickle.dumps:
                    with pytest.raises(TypeError, match="cannot copy or pickle 'watch'"):
                        call(events)

    execute(main())


@pytest.mark.parametrize("edge", [Event(0), Event.ET])
def test_a_child_leaves_the_parents_watch_alone(execute: Execute, edge: Event) -> None:
    async def main() -> None:
        with contextlib.closing(Pipe()) as pipe:
            events: aio.watch | None = aio.watch(pipe.read, Event.IN | edge)
            assert events is not None
            assert await is_quiet(events)
            for how in "closes", "forgets":
                child = fork(20)
                if child == 0:
                    status = 1
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("error")
                            if how == "closes":
                                events.close()
                            events = None
                            gc.collect()
                        status = 0
                    finally:
                        os._exit(status)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                os.write(pipe.write, b"x")
                assert await anext(events) == Event.IN
                os.read(pipe.read, 1)
            events.close()

    execute(main())
