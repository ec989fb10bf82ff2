"""The end of subprocesses: reported as asyncio's child watchers do, and without a thread for each."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from asyncio import unix_events
from collections.abc import Iterator
from typing import Any

import pytest
from support.fds import open_fds
from support.loops import FACTORIES, logged, on, same, soon, turns

from pyepoll import aio

_unix: Any = unix_events
_events: Any = asyncio.events

OURS = sys.version_info < (3, 14)
"""Whether the loop waits for processes itself; later, asyncio does so in the same way."""


@contextlib.contextmanager
def policy(made: Any) -> Iterator[None]:
    """An event loop policy, with no child watcher yet unless it comes with one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        before = _events._event_loop_policy
        asyncio.set_event_loop_policy(made)
        try:
            yield
        finally:
            asyncio.set_event_loop_policy(before)


@pytest.fixture(autouse=True)
def _default_policy() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = asyncio.DefaultEventLoopPolicy()
    with policy(made):
        yield


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-S", "-c", code


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", -15), ("kill -KILL $$", -9)],
)
def test_exit_codes(command: str, code: int) -> None:
    async def scenario() -> list[int | None]:
        process = await asyncio.create_subprocess_shell(command)
        first, second = await asyncio.gather(process.wait(), process.wait())
        return [first, second, process.returncode, await process.wait()]

    assert same(scenario) == [code] * 4


def test_the_calls_of_a_protocol() -> None:
    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls: list[Any] = []

        class Protocol(asyncio.SubprocessProtocol):
            def connection_made(self, transport: Any) -> None:
                calls.append(("made", transport.get_returncode()))

            def pipe_data_received(self, fd: int, data: bytes) -> None:
                calls.append((fd, data))

            def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
                calls.append(("pipe lost", fd, exc))

            def process_exited(self) -> None:
                calls.append("exited")

            def connection_lost(self, exc: Exception | None) -> None:
                calls.append(("lost", exc))
                ended.set_result(None)

        ended: asyncio.Future[None] = loop.create_future()
        transport, _ = await loop.subprocess_shell(Protocol, "echo out; echo err >&2; read x; exit 7")
        pipe: Any = transport.get_pipe_transport(0)
        pipe.write(b"line\n")
        await ended
        code = transport.get_returncode()
        transport.close()
        return [calls[0], sorted(map(str, calls[1:-1])), calls[-1], code]

    same(scenario)


@pytest.mark.skipif(not OURS, reason="asyncio's own since CPython 3.14")
def test_no_thread_waits_for_a_process() -> None:
    async def scenario() -> int:
        before = threading.active_count()
        process = await asyncio.create_subprocess_exec("sleep", "60")
        count = threading.active_count() - before
        process.kill()
        await process.wait()
        return count

    assert on("pyepoll", scenario) == 0
    assert getattr(_events._event_loop_policy, "_watcher", None) is None


def test_many_at_once_leave_no_zombie_and_no_fd() -> None:
    async def one(number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"exit {number}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        await process.communicate()
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        return await process.wait()

    async def scenario() -> list[int]:
        before = set(open_fds())
        codes = await asyncio.gather(*(one(number) for number in range(20)))
        await turns()
        assert set(open_fds()) == before
        return codes

    assert same(scenario) == list(range(20))


def test_a_process_that_something_else_has_reaped() -> None:
    async def scenario() -> list[Any]:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.kill()
        os.waitpid(process.pid, 0)  # Before the loop can: that waits for an event.
        with logged() as messages:
            code = await process.wait()
        return [code, [str(process.pid) in message for message in messages]]

    # Not on asyncio's own loop: in CPython 3.11, its thread may be faster than the call above.
    assert on("pyepoll", scenario) == [255, [True]]


@pytest.mark.skipif(not OURS, reason="asyncio's own since CPython 3.14")
def test_ignored_sigchld() -> None:
    """The kernel reaps the process, perhaps before a pidfd could be opened."""

    async def scenario() -> list[Any]:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with logged() as messages:
                codes = [await (await asyncio.create_subprocess_exec("true")).wait() for _ in range(5)]
            return [codes, len(messages)]
        finally:
            signal.signal(signal.SIGCHLD, before)

    assert on("pyepoll", scenario) == [[255] * 5, 5]


def test_a_program_that_cannot_be_run() -> None:
    async def scenario() -> list[Any]:
        before = set(open_fds())
        try:
            await asyncio.create_subprocess_exec("/does/not/exist")
        except FileNotFoundError as error:
            await turns()
            return [error.filename, set(open_fds()) == before]
        return []

    assert same(scenario) == ["/does/not/exist", True]


def test_cancelled_while_it_starts() -> None:
    async def scenario() -> list[Any]:
        before = set(open_fds())
        task = asyncio.ensure_future(
            asyncio.create_subprocess_exec("sleep", "60", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            process = await task
            process.kill()
            await process.wait()
        await turns()
        return [task.cancelled(), set(open_fds()) == before]

    assert on("pyepoll", scenario)[1]


def test_a_loop_closed_with_a_live_child_closes_its_pidfd() -> None:
    before = set(open_fds())
    loop = aio.new_event_loop()
    process: Any = loop.run_until_complete(asyncio.create_subprocess_exec("sleep", "60"))
    pid: int = process.pid
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del process, loop
        gc.collect()
    try:
        if OURS:
            assert set(open_fds()) == before
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        for fd in set(open_fds()) - before:
            os.close(fd)


def test_in_a_thread_that_is_not_the_main_one() -> None:
    codes: list[int] = []

    async def scenario() -> None:
        codes.append(await (await asyncio.create_subprocess_shell("exit 4")).wait())

    thread = threading.Thread(target=on, args=("pyepoll", scenario))
    thread.start()
    thread.join(20)
    assert codes == [4]


def test_the_context_of_the_caller_is_that_of_process_exited() -> None:
    async def scenario() -> int:
        process = await asyncio.create_subprocess_exec(*python("import sys; sys.stdin.read()"), stdin=-1)
        # A signal and the end of stdin together: the exit is reported once.
        process.terminate()
        assert process.stdin is not None
        process.stdin.close()
        return await process.wait()

    assert same(scenario) in {-signal.SIGTERM, 0}


def watchers() -> list[str]:
    return [] if not OURS else ["ThreadedChildWatcher", "SafeChildWatcher", "PidfdChildWatcher"]


@pytest.mark.parametrize("name", watchers())
def test_a_child_watcher_that_a_program_has_set_is_used(name: str) -> None:
    calls: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Watcher(getattr(asyncio, name)):  # type: ignore[misc]
            def add_child_handler(self, pid: int, *args: Any) -> None:
                calls.append(pid)
                super().add_child_handler(pid, *args)

        async def scenario() -> int:
            watcher = Watcher()
            watcher.attach_loop(asyncio.get_running_loop())
            asyncio.set_child_watcher(watcher)
            try:
                return await (await asyncio.create_subprocess_shell("exit 5")).wait()
            finally:
                asyncio.set_child_watcher(None)  # type: ignore[arg-type]

        for each in FACTORIES:
            assert on(each, scenario) == 5
    assert len(calls) == len(FACTORIES)


@pytest.mark.skipif(not OURS, reason="there are no child watchers since CPython 3.14")
def test_a_policy_with_its_own_child_watcher_is_asked() -> None:
    asked: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            def get_child_watcher(self) -> Any:
                asked.append(super().get_child_watcher())
                return asked[-1]

        async def scenario() -> int:
            return await (await asyncio.create_subprocess_shell("exit 6")).wait()

        with policy(Policy()):
            assert on("pyepoll", scenario) == 6
    assert asked


@pytest.mark.skipif(not OURS, reason="there are no child watchers since CPython 3.14")
@pytest.mark.parametrize("error", [errno.EPERM, errno.EMFILE])
def test_without_a_pidfd_a_thread_waits(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For this process only: another one may get an fd."""
    from pyepoll import _processes

    def forbidden(pid: int) -> None:
        raise OSError(error, "pidfd_open")

    async def scenario() -> list[int]:
        before, found = threading.active_count(), []
        for fails in True, False:
            with monkeypatch.context() as patch:
                if fails:
                    patch.setattr(_processes, "Child", forbidden)
                process = await asyncio.create_subprocess_exec(*python("input()"), stdin=-1)
            found.append(threading.active_count() - before)
            process.terminate()
            found.append(await process.wait())
            await soon(lambda: threading.active_count() == before)
        return found

    assert on("pyepoll", scenario) == [1, -signal.SIGTERM, 0, -signal.SIGTERM]


@pytest.mark.skipif(not OURS, reason="asyncio's own since CPython 3.14")
@pytest.mark.parametrize("method", ["send_signal", "terminate", "kill", "close"])
@pytest.mark.parametrize("reaped", [False, True])
def test_a_call_after_the_end_loses_no_exit_code(method: str, reaped: bool) -> None:
    """These call Popen.poll(), which would reap the process, and reports 0 if something else has."""

    async def scenario() -> list[Any]:
        process = await asyncio.create_subprocess_shell("read line; exit 7", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"line\n")
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        transport: Any = process._transport  # type: ignore[attr-defined]
        for _ in range(2):
            getattr(transport, method)(*([signal.SIGTERM] if method == "send_signal" else []))
        with logged() as messages:
            return [await process.wait(), len(messages)]

    # Not on asyncio's own loop: most versions of it report 255.
    assert on("pyepoll", scenario) == ([255, 1] if reaped else [7, 0])


@pytest.mark.skipif(not OURS, reason="asyncio's own since CPython 3.14")
def test_a_process_without_its_pidfd_is_killed() -> None:
    """A program that closes all fds, to become a daemon, closes this one as well."""

    async def scenario() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        transport: Any = process._transport  # type: ignore[attr-defined]
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, transport._child.fileno())
        os.close(null)
        process.kill()
        transport.close()
        code: int = transport.get_extra_info("subprocess").wait()
        return code

    assert on("pyepoll", scenario) == -signal.SIGKILL


@pytest.mark.skipif(not OURS, reason="asyncio's own since CPython 3.14")
def test_a_transport_class_that_a_program_has_put_in_the_place_of_asyncios_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = type("Mine", (_unix._UnixSubprocessTransport,), {})
    monkeypatch.setattr(_unix, "_UnixSubprocessTransport", mine)

    async def scenario() -> list[Any]:
        process: Any = await asyncio.create_subprocess_shell("exit 9")
        return [type(process._transport) is mine, await process.wait()]

    assert on("pyepoll", scenario) == [True, 9]


def test_an_event_that_comes_early_is_ignored() -> None:
    """A pidfd is readable only at the end; the callback does not rely on that."""
    if not OURS:
        pytest.skip("asyncio's own since CPython 3.14")
    from pyepoll import Child, _processes

    async def scenario() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        ended: Any = _processes._ended
        with Child(process.pid, reap=False) as child:
            ended(asyncio.get_running_loop(), child, None)
        process.kill()
        await soon(lambda: process.returncode is not None)
        return await process.wait()

    assert on("pyepoll", scenario) == -signal.SIGKILL
