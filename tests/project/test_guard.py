"""A hanging test fails alone and its programs end; signals ignored by the session act on the programs."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.guard import end_session, started
from support.processes import HANG
from support.threads import until

TESTS = Path(__file__).parents[1]

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    # Hypothesis takes longer to import than a session here lasts.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
"""Of the sessions that the tests start."""

CONFTEST = """
import pytest
from support import guard

guard.AGAIN, guard.GRACE = 1, {grace}

def pytest_configure(config):
    config.guard = guard.Guard(2)

def pytest_unconfigure(config):
    config.guard.close()

@pytest.fixture(autouse=True)
def no_hang(request):
    request.config.guard.start(request.node, 0.5)
    yield
    request.config.guard.stop()
"""

PASSES = """
def test_before():
    pass
{hangs}
def test_after():
    pass
"""


def outcome(directory: Path, hangs: str, grace: float) -> tuple[int, str]:
    """The status and the output of a session in which one test hangs, between two that pass."""
    (directory / "conftest.py").write_text(CONFTEST.format(grace=grace))
    (directory / "pytest.ini").write_text("[pytest]")
    (directory / "test_it.py").write_text(PASSES.format(hangs=hangs))
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:faulthandler", "-p", "no:cacheprovider", "-vs"]
    with started(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        printed, _ = session.communicate(timeout=HANG / 2)
    return session.returncode, printed


@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(3600)",
        "threading.Lock().acquire() and threading.Event().wait()",
        "subprocess.run(['sleep', '3600'])",
        "pyepoll.Epoll().poll()",
        "asyncio.run(asyncio.sleep(3600))",
        "exec('while True: pass')",
    ],
)
def test_a_hang_fails_one_test(wait: str, tmp_path: Path) -> None:
    hangs = f"""
def test_that_hangs():
    import asyncio, pyepoll, subprocess, threading, time
    {wait}
"""
    status, printed = outcome(tmp_path, hangs, grace=20)
    assert status == 1
    assert "the test hangs: not done after 0.5 s" in printed
    assert re.search(r"^FAILED test_it.py::test_that_hangs", printed, re.MULTILINE)
    assert "1 failed, 2 passed" in printed


def test_the_threads_of_a_hang_end_with_the_session(tmp_path: Path) -> None:
    """Python waits for them at its exit."""
    hangs = """
def test_that_hangs():
    import threading
    thread = threading.Thread(target=threading.Event().wait)
    thread.start()
    thread.join()
"""
    status, printed = outcome(tmp_path, hangs, grace=1)
    assert status == 1
    assert "1 failed, 2 passed" in printed


def test_a_hang_that_cannot_be_interrupted_is_named(tmp_path: Path) -> None:
    """With the GIL held; the session ends, and the stack has the test's id."""
    hangs = """
import ctypes, pytest
@pytest.mark.parametrize("what", ["sleep"])
def test_that_hangs(what):
    ctypes.PyDLL(None).sigsuspend(ctypes.create_string_buffer(b"\\xff" * 128))
"""
    status, printed = outcome(tmp_path, hangs, grace=1)
    assert status == 1
    assert re.search(r"Timeout .*in test_it.py::test_that_hangs\[sleep\]$", printed, re.MULTILINE | re.DOTALL)


def test_processes_started_by_a_test_end_with_it(tmp_path: Path) -> None:
    """All of its session, also where it ignores the signals to end."""
    pids = tmp_path / "pids"
    program = f"trap '' INT TERM; sleep 3600 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait; sleep 3600"
    with contextlib.suppress(ZeroDivisionError), started(["sh", "-c", program]):
        until(pids.exists)
        raise ZeroDivisionError
    for pid in pids.read_text().split():
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists() or ended(pid))  # type: ignore[misc]


def ended(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def test_ending_a_session_that_has_ended_does_nothing() -> None:
    with started(["true"]) as process:
        process.wait()
        end_session(process)
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["INT", "HUP", "QUIT"])
def test_signals_ignored_by_the_session_act_on_programs(name: str, tmp_path: Path) -> None:
    """As it does with a background job, and nohup with SIGHUP: the tests' conftest.py undoes it."""
    test = f"{__file__}::test_a_child_is_ended_by_a_signal[{name}]"
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", test]
    with started(
        ["sh", "-c", f"trap '' {name}; exec \"$@\"", "-", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        printed, _ = session.communicate(timeout=HANG / 2)
    assert "1 passed" in printed, printed


@pytest.mark.parametrize("name", ["INT", "HUP", "QUIT"])
def test_a_child_is_ended_by_a_signal(name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    with started(["sleep", "3600"]) as process:
        process.send_signal(number)
        assert process.wait(10) == -number
