"""Each interpreter of a process has a pyepoll of its own, and from 3.12 on its own GIL."""

import os
import signal
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.effort import Effort
from support.fds import open_fds
from support.interpreters import SCENARIO, interpreters, run_in_interpreter
from support.processes import SANITIZED, run

import pyepoll


def test_failures_in_an_interpreter_are_reported() -> None:
    with pytest.raises(Exception, match="on purpose"):
        run_in_interpreter("raise RuntimeError('on purpose')")


@pytest.mark.parametrize("close", [True, False], ids=["closed", "left open"])
def test_interpreters_run_one_after_another(close: bool, effort: Effort) -> None:
    run_in_interpreter(SCENARIO.format(close=close))
    before = open_fds().keys()
    for _ in range(effort(5, 50)):
        run_in_interpreter(SCENARIO.format(close=close))
    assert open_fds().keys() == before


def test_interpreters_leak_no_memory(
    effort: Effort, show: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more than by an interpreter that only imports the package: from 3.12 on, each leaves some."""
    interpreters()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("it keeps the heaps of interpreters that have gone")
    if SANITIZED:
        pytest.skip("a sanitizer keeps freed memory")
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    words = run(
        f"""
        from support.interpreters import IDLE, SCENARIO, memory_of
        for program in IDLE, SCENARIO.format(close=True), SCENARIO.format(close=False):
            print(memory_of(program, {effort(10, 50)}))
        """
    ).split()
    idle, *used = map(int, words)
    show(f"{idle} bytes are left by an interpreter that imports the package, {used} by one that uses it")
    # The memory that the allocator keeps of the first ones is spread over fewer in the quick form.
    assert max(used) < idle + effort(65536, 16384)


@pytest.mark.lasts(600)
def test_interpreters_wait_in_parallel(effort: Effort) -> None:
    """Two interpreters each with an Epoll, and this one with one."""
    failures: list[BaseException] = []
    rounds = effort(2, 25)
    before = open_fds().keys()

    def work() -> None:
        try:
            for _ in range(rounds):
                run_in_interpreter(SCENARIO.format(close=True))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    fd = os.eventfd(1)
    with pyepoll.Epoll[int]() as ep:
        ep.register(fd, pyepoll.Event.IN)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert ep.poll(1) == [(fd, pyepoll.Event.IN)]
        for thread in threads:
            thread.join()
    os.close(fd)
    assert failures == []
    assert open_fds().keys() == before


def test_interpreters_share_no_state() -> None:
    """Another interpreter's epoll is a foreign one: its events come with their fds."""
    fd = os.eventfd(1)
    with pyepoll.Epoll[Any]() as ep:
        ep.register(fd, pyepoll.Event.IN, "data")
        run_in_interpreter(
            f"""
            import os, pyepoll
            # The object takes its number with it when it goes, so it gets one of its own.
            ep = pyepoll.Epoll.fromfd(os.dup({ep._instance_fd()}))
            assert len(ep) == 0
            assert ep.poll(0) == [({fd}, pyepoll.Event.IN)]
            """
        )
        assert ep.poll(0) == [("data", pyepoll.Event.IN)]
    os.close(fd)


def test_signals_belong_to_the_process() -> None:
    """One interpreter at a time has a signal, and gives it back when it ends."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, _: seen.append(signum))
    fds = open_fds().keys()
    try:
        with pyepoll.Signals(signal.SIGUSR2) as signals:
            run_in_interpreter(
                """
                import os, signal, pyepoll
                try:
                    pyepoll.Signals(signal.SIGUSR2)
                except OSError as error:
                    assert "another Signals object" in str(error)
                else:
                    raise AssertionError("it has a signal of another interpreter")
                left_open = pyepoll.Signals(signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR1)
                assert left_open.read() == [signal.SIGUSR1]
                assert type(left_open.signals[0]) is signal.Signals
                """
            )
            os.kill(os.getpid(), signal.SIGUSR2)
            assert signals.read() == [signal.SIGUSR2]
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert open_fds().keys() == fds


def test_an_interpreters_end_closes_no_unrelated_fd() -> None:
    """The eventfd that wakes waiters was closed with all fds, as daemons do, and its fd is reused."""
    unrelated_fds = [os.open(os.devnull, os.O_RDONLY), os.eventfd(7)]
    for unrelated in unrelated_fds:
        report, write = os.pipe()
        run_in_interpreter(
            f"""
            import os
            before = set(os.listdir("/proc/self/fd"))
            import pyepoll
            made = set(os.listdir("/proc/self/fd")) - before
            for fd in map(int, made):
                try:
                    os.dup2({unrelated}, fd)
                    os.write({write}, b"%d " % fd)
                except OSError:
                    pass
            """
        )
        os.close(write)
        with open(report) as file:
            numbers = [int(number) for number in file.read().split()]
        assert numbers
        for number in numbers:
            assert os.path.sameopenfile(number, unrelated)
            os.close(number)
    for unrelated in unrelated_fds:
        os.close(unrelated)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="a build with a GIL")
def test_the_import_leaves_the_gil_off() -> None:
    assert run("import sys, pyepoll; print(sys._is_gil_enabled())") == "False\n"
