"""Calls whose allocations fail. Where CPython cannot do that, importing this skips the test."""

import gc
import sys
import sysconfig
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from support.loops import on

if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
    pytest.skip("its own lists crash when they have no memory", allow_module_level=True)

_testcapi = pytest.importorskip("_testcapi", reason="a CPython without its test modules")
set_nomemory, remove_mem_hooks = _testcapi.set_nomemory, _testcapi.remove_mem_hooks

MOST_ALLOCATIONS = 200

Call = Callable[[], object]
Result = TypeVar("Result", bound=tuple[Any, ...])
Results = Callable[[], Coroutine[Any, Any, list[Result]]]


def without_memory(start: int, call: Call, failures: int = 1) -> bool:
    """Let the allocations after so many fail in a call; return whether it succeeded all the same."""
    # Kept, because it is a pair, and once released it would be the first to be reused.
    window = (start, start + failures)
    set_nomemory(*window)
    try:
        call()
    except MemoryError:
        return False
    except SystemError as error:
        # The interpreter loses an exception when it has no memory for the frame of its traceback.
        if str(error) != "error return without exception set":
            raise
        return False
    finally:
        remove_mem_hooks()
    return True


def ours(results: Results[Result]) -> list[Result]:
    return on("pyepoll", results)


def with_each_allocation_failing(
    once: Callable[[int], Coroutine[Any, Any, Result]],
    run: Callable[[Results[Result]], list[Result]] = ours,
) -> list[Result]:
    """The results of calls of which the first allocation fails, then the second, until none has failed.

    The first item of a result says whether none has failed.
    """

    async def scenario() -> list[Result]:
        results: list[Result] = []
        while not (results and results[-1][0]) and len(results) < MOST_ALLOCATIONS:
            results.append(await once(len(results)))
        return results

    gc.disable()
    try:
        return run(scenario)
    finally:
        gc.enable()
