"""Handles are asyncio's to all who look: class, attributes, text, cancellation, and what running does."""

import asyncio
import contextlib
import contextvars
import copy
import ctypes
import gc
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loops import FACTORIES
from support.processes import SANITIZED

from pyepoll.aio import EventLoop, _aio

variable = contextvars.ContextVar("variable", default="none")
ARGUMENTS: list[tuple[Any, ...]] = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), tuple(range(20))]


@pytest.fixture
def loop() -> Iterator[Any]:
    loop = EventLoop()
    loop.set_debug(False)
    with contextlib.closing(loop):
        yield loop


def made(loop: Any, args: tuple[Any, ...]) -> list[Any]:
    """A handle of each kind."""
    return [
        loop.call_soon(print, *args),
        loop.call_later(100, print, *args),
        loop.call_at(loop.time() + 100, print, *args),
    ]


@pytest.mark.parametrize("args", ARGUMENTS)
def test_attributes_are_asyncios(loop: Any, args: tuple[Any, ...]) -> None:
    for handle in made(loop, args):
        bases = type(handle).__mro__
        assert asyncio.Handle in bases
        assert (asyncio.TimerHandle in bases) == hasattr(handle, "_when")
        assert handle._args == args
        assert handle._args is handle._args
        assert handle._callback is print
        assert handle._loop is loop
        assert handle._cancelled is False
        assert handle._source_traceback is None
        assert not hasattr(handle, "get_context") or handle.get_context() is handle._context
        assert type(handle._context) is contextvars.Context
        assert not hasattr(handle, "__dict__")
        handle.cancel()
        assert [handle._args, handle._callback] == [None, None]
        assert [handle._cancelled, handle.cancelled()] == [True, True]
        assert handle.cancel() is None


@pytest.mark.parametrize("args", ARGUMENTS)
def test_text_is_asyncios(args: tuple[Any, ...]) -> None:
    texts = []
    for make in FACTORIES.values():
        loop: Any = make()
        handles = [loop.call_soon(print, *args), loop.call_at(7.5, print, *args)]
        texts.append([repr(handle) for handle in handles])
        for handle in handles:
            handle.cancel()
        texts[-1] += [repr(handle) for handle in handles]
        loop.close()
    assert texts[0] == texts[1]


def test_timers_compare_as_asyncios(loop: Any) -> None:
    early, late = loop.call_at(1, print, 1), loop.call_at(2, print, 1)
    assert early < late
    assert late > early
    assert early <= late
    assert early == loop.call_at(1, print, 1)
    assert early != loop.call_at(1, print, 2)
    assert hash(early) == hash(1)
    assert early.when() == 1
    assert early == asyncio.TimerHandle(1, print, (1,), loop)


def test_handle_can_be_weakly_referenced(loop: Any) -> None:
    handles = made(loop, (1,))
    while handles:
        handle = handles.pop()
        reference = weakref.ref(handle)
        handle.cancel()
        loop._ready.clear()
        del handle
        assert reference() is None


def test_handle_cannot_be_made_or_copied(loop: Any) -> None:
    for handle in made(loop, ()):
        with pytest.raises(TypeError):
            type(handle)(print, (), loop)
        with pytest.raises(TypeError):
            copy.copy(handle)


@pytest.mark.parametrize("args", ARGUMENTS)
def test_arguments_can_be_replaced(loop: Any, args: tuple[Any, ...]) -> None:
    """Private, but some do: the call is the slot's value."""
    ran: list[Any] = []
    handle = loop.call_soon(lambda *args: ran.append(args), *args)
    handle._args = ("other",)
    with pytest.raises(AttributeError):
        del handle._args
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [("other",)]


def test_run_calls_it(loop: Any) -> None:
    ran: list[Any] = []
    handle = loop.call_soon(ran.append, 1)
    assert handle._run() is None
    assert ran == [1]


@pytest.mark.parametrize("args", ARGUMENTS)
def test_reused_handles_keep_nothing(loop: Any, args: tuple[Any, ...]) -> None:
    """Dead handles are used again."""

    class Kept:
        def __call__(self, *args: object) -> None:
            pass

    gone = []
    for _ in range(20):
        callback = Kept()
        gone.append(weakref.ref(callback))
        soon = loop.call_soon(callback, *args, context=contextvars.copy_context())
        later = loop.call_later(-1, callback, *args)
        cancelled = [loop.call_soon(callback, *args), loop.call_later(5, callback, *args)]
        for handle in cancelled:
            handle.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        del callback, soon, later, cancelled, handle
        assert gone[-1]() is None


def test_abandoned_loop_is_collected_with_its_handles() -> None:
    class Kept:
        pass

    kept: Any = Kept()
    kept.loop = EventLoop()
    kept.handles = made(kept.loop, (kept,))
    kept.loop.call_soon(print, kept)
    gone = weakref.ref(kept)
    kept.loop.close()
    kept.loop._ready.append(kept.handles[0])
    kept.loop._scheduled.append(kept.handles[1])
    del kept
    gc.collect()
    assert gone() is None


def on_both(act: Callable[[Any, list[Any]], object]) -> list[Any]:
    """Let act() schedule, and run the loop: what was seen and reported is the same as on asyncio's."""
    results = []
    for make in FACTORIES.values():
        loop: Any = make()
        seen: list[Any] = []
        loop.set_exception_handler(
            lambda loop, context, seen=seen: seen.append(
                [context["message"], repr(context["exception"]), sorted(context), sys.exc_info()[0]]
            )
        )
        act(loop, seen)
        loop.call_soon(loop.stop)
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()
        seen.append(len(loop._ready))
        loop.close()
        results.append(seen)
    assert results[0] == results[1]
    return results[0]


def fail(*args: object) -> None:
    raise ZeroDivisionError(*args)


@pytest.mark.parametrize("args", ARGUMENTS)
def test_exception_is_reported_as_asyncio_does(args: tuple[Any, ...]) -> None:
    def act(loop: Any, seen: list[Any]) -> None:
        loop.call_soon(fail, *args)
        loop.call_later(-1, fail, *args)
        loop.call_soon(5, *args)
        loop.call_soon(seen.append, 1, 2, 3)
        loop.call_soon(seen.append, "last")

    assert "last" in on_both(act)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_end_of_the_program_leaves_the_rest_queued(error: type[BaseException]) -> None:
    def act(loop: Any, seen: list[Any]) -> None:
        def end() -> None:
            raise error

        loop.call_soon(end)
        loop.call_soon(seen.append, "left")

    assert on_both(act) == [2]


def test_context_is_that_of_the_call() -> None:
    def act(loop: Any, seen: list[Any]) -> None:
        variable.set("outer")
        inner = contextvars.copy_context()
        inner.run(variable.set, "inner")

        def look() -> None:
            seen.append(variable.get())
            variable.set("changed")

        for context in None, inner, inner:
            loop.call_soon(look, context=context)
            loop.call_later(-1, look, context=context)
            loop.call_soon_threadsafe(look, context=context)
        loop.call_soon(look, context="no context")

    try:
        assert on_both(act)[:2] == ["outer", "outer"]
    finally:
        variable.set("none")


def test_context_that_is_entered_is_reported() -> None:
    def act(loop: Any, seen: list[Any]) -> None:
        loop.call_exception_handler = lambda context: seen.append(repr(context["exception"])[:40])
        context = contextvars.copy_context()
        loop.call_soon(seen.append, "not called", context=context)
        loop.call_soon(seen.append, "called")
        loop.call_soon(loop.stop)
        context.run(loop.run_forever)

    seen = on_both(act)
    assert "cannot enter context" in seen[0]
    assert seen[1:] == ["called", 0]


def test_cancel_within_a_turn_is_honoured() -> None:
    def act(loop: Any, seen: list[Any]) -> None:
        handles: list[Any] = []
        loop.call_soon(lambda: [handle.cancel() for handle in handles])
        handles += [loop.call_soon(seen.append, "soon"), loop.call_later(-1, seen.append, "later")]

    on_both(act)


def test_callback_may_cancel_itself() -> None:
    """It keeps its arguments."""

    def act(loop: Any, seen: list[Any]) -> None:
        def cancels(*args: object) -> None:
            handle.cancel()
            gc.collect()
            seen.append(args)
            raise ZeroDivisionError

        handle = loop.call_soon(cancels, [1], [2], [3])

    on_both(act)


CALLS: dict[str, Callable[[Any], object]] = {
    "call_soon()": lambda loop: loop.call_soon(),
    "call_soon(callback=)": lambda loop: loop.call_soon(callback=print),
    "call_soon(x=)": lambda loop: loop.call_soon(print, x=1),
    "call_soon(context=, x=)": lambda loop: loop.call_soon(print, context=None, x=1),
    "call_later()": lambda loop: loop.call_later(),
    "call_later(1)": lambda loop: loop.call_later(1),
    "call_later(None)": lambda loop: loop.call_later(None, print),
    "call_later(text)": lambda loop: loop.call_later("1", print),
    "call_later(much)": lambda loop: loop.call_later(1 << 2000, print),
    "call_later(nan)": lambda loop: loop.call_later(float("nan"), print),
    "call_at(None)": lambda loop: loop.call_at(None, print),
    "call_at(1)": lambda loop: loop.call_at(1),
    "call_at(text)": lambda loop: [loop.call_at("1", print), loop._scheduled.clear()],
    "call_soon_threadsafe()": lambda loop: loop.call_soon_threadsafe(),
    "create_future(1)": lambda loop: loop.create_future(1),
    "create_task()": lambda loop: loop.create_task(),
    "create_task(1)": lambda loop: loop.create_task(1),
    "create_task(x=)": lambda loop: loop.create_task(asyncio.sleep(0), x=1),
    "run_forever(1)": lambda loop: loop.run_forever(1),
}


@pytest.mark.parametrize("state", ["open", "debug", "closed"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
def test_errors_are_asyncios(name: str, state: str) -> None:
    errors: list[tuple[Any, str]] = []
    for make in FACTORIES.values():
        loop: Any = make()
        loop.set_debug(state == "debug")
        if state == "closed":
            loop.close()
        try:
            CALLS[name](loop)
        except Exception as error:
            # Ours is a built-in method where asyncio's has the name of its class.
            errors.append((type(error), str(error).rpartition(".")[2]))
        else:
            errors.append((type(None), ""))
        loop._scheduled.clear()
        loop._ready.clear()
        loop.close()
    if name in ("create_future(1)", "run_forever(1)"):
        assert [error[0] for error in errors] == [TypeError, TypeError]
    else:
        assert errors[0] == errors[1]


def test_arguments_are_taken_by_name(loop: Any) -> None:
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(fd=a, callback=print)
        loop.add_writer(fd=a, callback=print)
        assert loop.remove_reader(fd=a)
        assert loop.remove_writer(fd=a)
        for call in (loop.add_reader, loop.add_writer, loop.remove_reader, loop.remove_writer):
            with pytest.raises(TypeError, match=call.__name__):
                call()
    loop.call_soon(callback=print).cancel()
    loop.call_soon_threadsafe(callback=print).cancel()
    loop.call_later(delay=1, callback=print).cancel()
    loop.call_at(when=1, callback=print).cancel()
    coro = asyncio.sleep(0)
    loop.run_until_complete(loop.create_task(coro=coro))


def test_the_types_are_ours(loop: Any) -> None:
    assert [type(handle) for handle in made(loop, ())] == [
        _aio.Handle,
        _aio.TimerHandle,
        _aio.TimerHandle,
    ]


def test_loop_has_slots_for_all_that_asyncio_sets(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert vars(loop) == {}


@pytest.mark.skipif(SANITIZED, reason="its frames are larger than CPython's limit allows for")
def test_turns_within_turns_end_at_the_recursion_limit(loop: Any) -> None:
    """Each callback runs a turn, which runs the next: CPython's limit comes before the end of the stack."""
    reported: list[type] = []
    loop.set_exception_handler(lambda loop, context: reported.append(type(context["exception"])))
    for _ in range(100_000):
        loop.call_soon(loop._run_once)
    loop.stop()  # No turn waits.
    while loop._ready:
        loop._run_once()
    assert set(reported) == {RecursionError}


class MethodDef(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@pytest.mark.skipif(hasattr(sys, "gettotalrefcount"), reason="a debug build of CPython aborts")
def test_a_c_function_that_fails_without_an_exception_is_reported(loop: Any) -> None:
    """It is a fault of its extension, for which CPython raises SystemError."""
    fails = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(lambda module, ignored: None)
    no_arguments = 4  # METH_NOARGS
    method = MethodDef(b"fails", ctypes.cast(fails, ctypes.c_void_p), no_arguments, None)
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    reported: list[str] = []
    loop.set_exception_handler(lambda loop, context: reported.append(repr(context["exception"])))
    loop.call_soon(new(ctypes.addressof(method), None, None))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(reported) == 1
    assert "returned NULL without setting an exception" in reported[0]
