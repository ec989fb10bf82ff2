"""No public call, accepted or refused, leaks memory, fds or references."""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support.effort import Effort
from support.fds import open_fds
from support.leaks import COUNTS, FEW, leaks
from support.processes import SANITIZED, in_child
from support.surface import CALLS, REFUSALS, Bench, Data, missing_and_unknown, refused
from support.thirds import thirds

Call = Callable[[Bench], object]


def raise_in_handler(bench: Bench) -> None:
    """A signal handler's exception comes out of a wait."""

    def handler(number: int, frame: object) -> None:
        raise ZeroDivisionError

    def wait() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0001)
        while True:
            bench.ep.wait(10, 1, [signal.SIGINT])

    before = signal.signal(signal.SIGALRM, handler)
    try:
        refused(ZeroDivisionError, wait)
    finally:
        signal.signal(signal.SIGALRM, before)


def leave_by_exception(bench: Bench) -> None:
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError):
            for _ in bench.ep:
                raise ZeroDivisionError


CALLS_AND_MORE: dict[str, Call] = {
    **CALLS,
    **{name: partial(lambda refusal, bench: refused(*refusal(bench)), REFUSALS[name]) for name in REFUSALS},
    "Epoll.wait (a handler raises)": raise_in_handler,
    "Epoll.__iter__ (an exception)": leave_by_exception,
}

CLASSES_AND_FUNCTIONS = sorted({re.split(r"\W", name)[0] for name in CALLS_AND_MORE})

kept: list[object] = []
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

# Calls that leak, and the counts that show it.
LEAKS: dict[str, tuple[Call, set[str]]] = {
    "an object": (lambda bench: kept.append(Data()), {"blocks of memory", "references", "psleak"}),
    "a reference": (lambda bench: ctypes.pythonapi.Py_IncRef(ctypes.py_object(bench.data)), {"references"}),
    "memory of C": (lambda bench: libc.malloc(100), {"psleak"}),
    "an fd": (lambda bench: os.dup(0), {"fds", "psleak"}),
}


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_every_public_name_is_called() -> None:
    assert missing_and_unknown() == set()


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_detected(bench: Bench, what: str) -> None:
    call, seers = LEAKS[what]
    before = open_fds()
    try:
        # Ten rounds of so many: fewer than the 1,024 fds that a user may have.
        assert leaks(lambda: call(bench), 50).keys() == seers & COUNTS.keys()
    finally:
        kept.clear()
        for fd in open_fds().keys() - before.keys():
            os.close(fd)


@pytest.mark.lasts(600)
@pytest.mark.parametrize("name", CALLS_AND_MORE)
def test_counts_stay_flat(bench: Bench, effort: Effort, name: str) -> None:
    """Blocks of memory, references (on a debug build) and fds."""
    call = CALLS_AND_MORE[name]
    # A collection takes a while where it has no generations.
    times = 50 if name.endswith("(a cycle)") else effort(1000, 5000)
    assert leaks(lambda: call(bench), times) == {}


def test_a_childs_copy_leaks_nothing(bench: Bench, effort: Effort) -> None:
    """Each child uses its copy, and has a child of its own: leaks of each are in the last one."""

    def live_on(generations: int) -> None:
        generation()
        gc.collect()
        before = {name: count() for name, count in COUNTS.items()}
        for _ in range(generations):
            # The parent of each goes when all that come after it have gone.
            if (child := os.fork()) != 0:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            generation()
        gc.collect()
        assert {name: by for name, count in COUNTS.items() if (by := count() - before[name]) > FEW} == {}

    def generation() -> None:
        bench.ep.poll(0)

    assert in_child(lambda: live_on(effort(40, 150))) == ""


def psleak(names: str, times: int) -> dict[str, str]:
    """The report of psleak, run as it requires: in a process that does nothing else, with malloc for all."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", __file__, names, str(times)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONMALLOC": "malloc",
            "PYTHONUNBUFFERED": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def run_psleak(names: str, times: int) -> dict[str, str]:
    psleak: Any = importlib.import_module("psleak")
    bench = Bench()
    case = psleak.MemoryLeakTestCase()
    # Its check for garbage keeps all that is collected, a cycle's fds too.
    no_garbage = psleak.Checkers.exclude("gcgarbage")
    said = {}
    gc.collect()
    gc.freeze()
    calls = {**CALLS_AND_MORE, **{name: call for name, (call, _) in LEAKS.items()}}
    for name in [name for name in calls if re.match(names, name)]:
        try:
            case.execute(
                partial(calls[name], bench),
                times=times,
                checkers=no_garbage if name.endswith("(a cycle)") else None,
            )
        except psleak.Error as error:
            said[name] = str(error)
    return said


@pytest.fixture
def has_psleak() -> None:
    pytest.importorskip("psleak")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("its memory is not C's malloc's, so psleak cannot see it")
    if SANITIZED:
        pytest.skip("psleak asks glibc's malloc, which a sanitizer replaces")


@pytest.mark.usefixtures("has_psleak")
def test_psleak_detects_a_leak() -> None:
    said = psleak("an? |memory", 100)
    assert said.keys() == {what for what, (_, seers) in LEAKS.items() if "psleak" in seers}


@pytest.mark.usefixtures("has_psleak")
@pytest.mark.lasts(600)
@pytest.mark.parametrize("names", thirds((name,) for name in CLASSES_AND_FUNCTIONS))
def test_psleak_finds_no_leak(names: str, effort: Effort) -> None:
    assert psleak(rf"{names}\b", effort(50, 1000)) == {}


if __name__ == "__main__":
    print(json.dumps(run_psleak(sys.argv[1], int(sys.argv[2]))))
