"""Ready callbacks run in asyncio's order, as often as on asyncio's loop, and in its context.

Ours queues and runs the handles of events in C; see csrc/aio/poll.c and run.c.
"""

import asyncio
import contextlib
import contextvars
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from support.loops import FACTORIES, Plain, complaints, connection, logged, same, soon, tcp_pair, turns
from support.processes import run

PAIRS = 6
Pairs = list[tuple[socket.socket, socket.socket]]
variable = contextvars.ContextVar("variable", default="none")


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(PAIRS)]
        for end in (end for pair in made for end in pair):
            stack.enter_context(end).setblocking(False)
        yield made


def make_ready(pairs: Pairs) -> None:
    for _, peer in pairs:
        peer.send(b"data")


def in_turn(pairs: Pairs, act: Callable[[asyncio.AbstractEventLoop, list[Any], int], object]) -> list[Any]:
    """On both loops: all ready at once; each reader says its number and lets act() do more."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        def read(number: int) -> None:
            seen.append(number)
            pairs[number][0].recv(100)
            act(loop, seen, number)

        for number, (sock, _) in enumerate(pairs):
            loop.add_reader(sock, read, number)
        make_ready(pairs)
        await turns()
        for sock, _ in pairs:
            loop.remove_reader(sock)
            loop.remove_writer(sock)
            with contextlib.suppress(BlockingIOError):
                sock.recv(100)  # The next loop is to find nothing.
        return seen

    return same(scenario)


def test_readers_run_before_callbacks_that_they_call_soon(pairs: Pairs) -> None:
    seen = in_turn(pairs, lambda loop, seen, number: loop.call_soon(seen.append, f"soon {number}"))
    assert seen == [*range(PAIRS), *(f"soon {number}" for number in range(PAIRS))]


def test_due_timers_run_after_the_group(pairs: Pairs) -> None:
    def act(loop: asyncio.AbstractEventLoop, seen: list[Any], number: int) -> None:
        loop.call_later(-1, seen.append, f"late {number}")

    assert in_turn(pairs, act)[PAIRS:] == [f"late {number}" for number in range(PAIRS)]


def test_reading_runs_before_writing(pairs: Pairs) -> None:
    def act(loop: asyncio.AbstractEventLoop, seen: list[Any], number: int) -> None:
        def write() -> None:
            seen.append(f"write {number}")
            loop.remove_writer(pairs[number][0])

        if "data" not in seen:
            loop.add_writer(pairs[number][0], write)

    seen = in_turn(pairs, act)
    assert seen == [*range(PAIRS), *(f"write {number}" for number in range(PAIRS))]


@pytest.mark.parametrize("gone", [1, PAIRS - 1])
def test_a_reader_removed_by_an_earlier_one_does_not_run(pairs: Pairs, gone: int) -> None:
    def act(loop: asyncio.AbstractEventLoop, seen: list[Any], number: int) -> None:
        if number == 0:
            loop.remove_reader(pairs[gone][0])

    assert in_turn(pairs, act) == [number for number in range(PAIRS) if number != gone]


def test_a_reader_replaced_by_an_earlier_one_runs_a_turn_later(pairs: Pairs) -> None:
    def act(loop: asyncio.AbstractEventLoop, seen: list[Any], number: int) -> None:
        def other() -> None:
            seen.append("other")
            pairs[2][0].recv(100)

        if number == 0:
            loop.add_reader(pairs[2][0], other)

    assert in_turn(pairs, act) == [0, 1, 3, 4, 5, "other"]


def test_stop_lets_the_turn_finish(pairs: Pairs) -> None:
    for make in FACTORIES.values():
        loop = make()
        seen: list[int] = []

        def read(number: int, loop: asyncio.AbstractEventLoop = loop, seen: list[int] = seen) -> None:
            seen.append(number)
            pairs[number][0].recv(100)
            loop.stop()

        for number, (sock, _) in enumerate(pairs):
            loop.add_reader(sock, read, number)
        make_ready(pairs)
        loop.run_forever()
        assert seen == list(range(PAIRS))
        loop.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("last", [0, 3, PAIRS - 1])
def test_callbacks_left_by_an_end_of_the_program_run_next(
    pairs: Pairs, error: type[BaseException], last: int
) -> None:
    """The rest is next, before the callbacks that it has called soon, once the loop goes on."""
    for make in FACTORIES.values():
        loop = make()
        seen: list[Any] = []

        def read(number: int, loop: asyncio.AbstractEventLoop = loop, seen: list[Any] = seen) -> None:
            seen.append(number)
            pairs[number][0].recv(100)
            loop.call_soon(seen.append, f"soon {number}")
            if number == last:
                raise error

        for number, (sock, _) in enumerate(pairs):
            loop.add_reader(sock, read, number)
        make_ready(pairs)
        with pytest.raises(error):
            loop.run_forever()
        assert seen == list(range(last + 1))
        loop.call_soon(loop.stop)
        loop.run_forever()
        rest = range(last + 1, PAIRS)
        assert seen[last + 1 :][: len(rest)] == list(rest)
        loop.close()


def test_transports_and_readers_keep_their_order() -> None:
    """A transport's reading, which is called in C, and others, which are not, take their turns."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        class Says(Plain):
            def __init__(self, number: int) -> None:
                super().__init__()
                self.number = number

            def data_received(self, data: bytes) -> None:
                seen.append((self.number, data))

        def read(number: int) -> None:
            seen.append((number, ends[number][0].recv(9)))

        with ExitStack() as stack:
            ends = [tcp_pair() for _ in range(PAIRS)]
            for end in (end for pair in ends for end in pair):
                stack.enter_context(end).setblocking(False)
            transports = []
            for number, (sock, _) in enumerate(ends):
                if number % 2:
                    loop.add_reader(sock, read, number)
                else:
                    made = await loop.create_connection(partial(Says, number), sock=sock)
                    transports.append(made[0])
            make_ready(ends)
            await soon(lambda: len(seen) == PAIRS)
            for sock, _ in ends[1::2]:
                loop.remove_reader(sock)
            for transport in transports:
                transport.close()
            await turns()
        return seen

    assert same(scenario) == [(number, b"data") for number in range(PAIRS)]


def test_a_transport_reads_in_its_context() -> None:
    """It is the context in which the transport was made, and variables that data_received() sets stay set."""

    async def scenario() -> list[str]:
        seen: list[str] = []

        class Sets(Plain):
            def data_received(self, data: bytes) -> None:
                seen.append(variable.get())
                variable.set(data.decode())

        variable.set("made")
        async with connection(Sets()) as (_, peer):
            variable.set("later")
            for number in range(3):
                peer.send(f"data {number}".encode())
                await soon(lambda number=number: len(seen) > number)  # type: ignore[misc]
            return [*seen, variable.get()]

    assert same(scenario) == ["made", "data 0", "data 1", "later"]


def reader_of(transport: Any) -> Any:
    """The handle of a transport's reading."""
    loop: Any = asyncio.get_running_loop()
    return loop._selector.get_key(transport.get_extra_info("socket").fileno()).data[0]


def test_a_context_that_cannot_be_entered_is_reported() -> None:
    """As the loop runs in it. The exception handler cannot enter it either, so asyncio logs that."""
    entered = contextvars.copy_context()

    async def scenario() -> str:
        async with connection(Plain()) as (transport, peer):
            handle = reader_of(transport)
            proper, handle._context = handle._context, entered
            with logged() as messages:
                peer.send(b"data")
                await soon(lambda: bool(messages))
                handle._context = proper
            return messages[0]

    assert "cannot enter context" in entered.run(same, scenario)


class AsksTooMuch(Plain):
    """Makes the transport's reading raise, outside all methods of the protocol."""

    def eof_received(self) -> Any:
        class Neither:
            def __bool__(self) -> bool:
                raise ZeroDivisionError

        return Neither()


def test_an_exception_of_a_transports_reading_is_reported() -> None:
    """It is reported as that of any callback."""

    async def scenario() -> Any:
        reported = complaints()
        async with connection(Plain()) as (transport, peer):
            handle = reader_of(transport)
            transport.set_protocol(AsksTooMuch())
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: bool(reported))
            transport.pause_reading()
            assert reported[0]["handle"] is handle
            assert "_read_ready" in reported[0]["message"]
        return type(reported[0]["exception"])

    assert same(scenario) is ZeroDivisionError


def test_a_patched_handle_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program does that measures the time of callbacks."""
    proper: Any = vars(asyncio.Handle)["_run"]
    called: list[object] = []

    def patched(self: Any) -> None:
        called.append(self)
        proper(self)

    async def scenario() -> bool:
        async with connection(seen := Plain()) as (transport, peer):
            peer.send(b"data")
            monkeypatch.setattr(asyncio.Handle, "_run", patched)
            await soon(lambda: seen.has(4))
            monkeypatch.setattr(asyncio.Handle, "_run", proper)
            return reader_of(transport) in called

    assert same(scenario)


def test_debug_mode_can_be_turned_on_within_a_turn(pairs: Pairs) -> None:
    def act(loop: asyncio.AbstractEventLoop, seen: list[Any], number: int) -> None:
        loop.slow_callback_duration = 0 if number else 1000
        loop.set_debug(number % 2 == 0)

    assert in_turn(pairs, act) == list(range(PAIRS))


def test_a_nested_run_keeps_the_rest_of_the_turn(pairs: Pairs) -> None:
    """As nest_asyncio does it: the rest of the turn waits for the inner one's end, and is not lost."""

    def act(loop: Any, seen: list[Any], number: int) -> None:
        if number == 1:
            loop._run_once()
            seen.append("inner")

    async def scenario() -> set[Any]:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []

        def read(number: int) -> None:
            try:
                pairs[number][0].recv(100)
            except BlockingIOError:
                return
            seen.append(number)
            act(loop, seen, number)

        for number, (sock, _) in enumerate(pairs):
            loop.add_reader(sock, read, number)
        make_ready(pairs)
        await turns()
        for sock, _ in pairs:
            loop.remove_reader(sock)
        assert len(seen) == PAIRS + 1
        return set(seen)

    assert same(scenario) == {*range(PAIRS), "inner"}


def fed(*feeds: Any) -> list[Any]:
    """On both loops: the selector reports these lists of events, one a turn; what ran, and what was raised.

    In an event, "key" stands for the key of a reader and a writer, "cancelled" for one whose reader is.
    """

    def scenario(loop: Any) -> list[Any]:
        a, b = socket.socketpair()
        seen: list[Any] = []
        with a, b:
            loop.add_reader(a, seen.append, "reader")
            loop.add_writer(a, seen.append, "writer")
            key = loop._selector.get_key(a)
            gone = asyncio.Handle(seen.append, ("gone",), loop)
            gone.cancel()
            other = SubclassedHandle(seen.append, ("subclass",), loop)
            names = {
                "key": key,
                "cancelled": key._replace(data=(gone, key.data[1])),
                "subclass": key._replace(data=(other, None)),
            }
            reports = [
                type(feed)(
                    (names.get(event[0], event[0]), *event[1:]) if type(event) is tuple and event else event
                    for event in feed
                )
                for feed in feeds
            ]

            def select(timeout: float | None) -> Any:
                if not reports:
                    loop.stop()
                return reports.pop(0) if reports else []

            proper, loop._selector.select = loop._selector.select, select
            try:
                loop.run_forever()
            except Exception as error:
                seen.append(type(error))
            loop._selector.select = proper
            loop.remove_reader(a)
            loop.remove_writer(a)
        loop.close()
        return seen

    theirs, ours = (scenario(make()) for make in FACTORIES.values())
    assert ours == theirs
    return ours


class SubclassedHandle(asyncio.Handle):
    def _run(self) -> None:
        super()._run()
        super()._run()


def test_events_run_the_handles_of_their_keys() -> None:
    assert fed([("key", 1)], [("key", 2)], [("key", 3), ("key", 1)]) == [
        *("reader", "writer"),
        *("reader", "writer", "reader"),
    ]


@pytest.mark.parametrize(
    "event",
    [
        None,
        (),
        (None, 1),
        ((0, 0, 0, None), 1),
        ((0, 0, 0, (None,)), 1),
        (("fileobj", 0, 0, ("reader", None)), 1),
        ((0, 0, 0, (None, None)), "mask"),
        ((0, 0, 0, (None, None)), 1 << 80),
    ],
)
def test_events_of_another_form_are_left_to_asyncio(event: Any) -> None:
    fed([("key", 3), event, ("key", 1)])


def test_events_that_are_no_list_are_left_to_asyncio() -> None:
    assert fed((("key", 3),)) == ["reader", "writer"]


def test_a_cancelled_reader_is_removed() -> None:
    # So the reader that was queued before is cancelled as well.
    assert fed([("key", 1), ("cancelled", 3), ("key", 2)]) == ["writer", "writer"]


def test_handles_of_another_class_run_by_their_own_method() -> None:
    assert fed([("subclass", 1), ("key", 1)]) == ["subclass", "subclass", "reader"]


def test_a_handle_patched_before_the_import_is_called() -> None:
    """As the tools that measure callbacks say to do it: first of all."""
    printed = run(
        """
        import asyncio, socket

        proper = asyncio.Handle._run

        def patched(self):
            print(getattr(self._callback, "__name__", None))
            proper(self)

        asyncio.Handle._run = patched
        from pyepoll import aio

        async def main():
            come = asyncio.get_running_loop().create_future()

            class Reads(asyncio.Protocol):
                def data_received(self, data):
                    come.set_result(data)

            near, peer = socket.socketpair()
            near.setblocking(False)
            with peer:
                transport, _ = await asyncio.get_running_loop().create_connection(Reads, sock=near)
                peer.send(b"data")
                await come
                transport.abort()
                await asyncio.sleep(0)

        aio.run(main())
        """
    )
    assert "_read_ready" in printed.split()


def test_a_handle_patched_earlier_in_the_turn_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    proper: Any = vars(asyncio.Handle)["_run"]
    called: list[object] = []

    def patched(self: Any) -> None:
        called.append(self)
        proper(self)

    async def scenario() -> list[bool]:
        async with connection(seen := Plain()) as (transport, peer):
            handle = reader_of(transport)
            peer.send(b"data")
            called.clear()
            asyncio.get_running_loop().call_soon(monkeypatch.setattr, asyncio.Handle, "_run", patched)
            await soon(lambda: seen.has(4))
            monkeypatch.setattr(asyncio.Handle, "_run", proper)
            return [handle is each for each in called if handle is each]

    assert same(scenario) == [True]


@pytest.mark.parametrize("created_in_debug", [False, True])
def test_the_exception_handler_gets_asyncios_context(created_in_debug: bool) -> None:
    """It may log the exception that is being handled, and where the handle was made."""

    async def scenario() -> list[Any]:
        loop = asyncio.get_running_loop()
        reported: list[Any] = []

        def handler(_: Any, context: dict[str, Any]) -> None:
            reported.append((sorted(context), sys.exc_info()[1] is context["exception"]))

        loop.set_exception_handler(handler)
        loop.set_debug(created_in_debug)
        async with connection(Plain()) as (transport, peer):
            transport.pause_reading()
            transport.resume_reading()
            loop.set_debug(False)
            transport.set_protocol(AsksTooMuch())
            peer.shutdown(socket.SHUT_WR)
            await soon(lambda: bool(reported))
            transport.pause_reading()
        return reported[:1]

    assert same(scenario)[0][1]


class Runs:
    """A context that is none of contextvars'."""

    def run(self, function: Callable[..., object], *args: object) -> object:
        return function(*args)


@pytest.mark.parametrize(("attribute", "value"), [("_context", Runs()), ("_args", (1,))])
def test_a_handle_that_resembles_a_transports_is_run_by_asyncio(attribute: str, value: object) -> None:
    async def scenario() -> list[Any]:
        seen: list[Any] = complaints()

        class Notes(Plain):
            def data_received(self, data: bytes) -> None:
                seen.append(data)

        async with connection(Notes()) as (transport, peer):
            handle = reader_of(transport)
            proper = getattr(handle, attribute)
            setattr(handle, attribute, value)
            peer.send(b"data")
            await soon(lambda: bool(seen))
            setattr(handle, attribute, proper)
            transport.pause_reading()
        return [each if isinstance(each, bytes) else type(each["exception"]) for each in seen[:1]]

    assert same(scenario) == [b"data" if attribute == "_context" else TypeError]


def test_debug_mode_turned_on_within_a_turn_logs_as_on_asyncio() -> None:
    for make in FACTORIES.values():
        loop = make()
        a, b = socket.socketpair()

        def read(loop: asyncio.AbstractEventLoop = loop, a: socket.socket = a) -> None:
            a.recv(9)
            loop.call_exception_handler({"message": "said"})
            loop.stop()

        with a, b, logged() as messages:
            loop.slow_callback_duration = 1000
            loop.add_reader(a, read)
            b.send(b"data")
            loop.call_soon(loop.set_debug, True)
            loop.run_forever()
            loop.remove_reader(a)
        loop.close()
        assert messages[0].startswith("said"), messages


def test_ready_handles_can_be_cancelled(pairs: Pairs) -> None:
    """As a program does that empties a loop."""
    for make in FACTORIES.values():
        loop: Any = make()
        seen: list[int] = []

        def purge(loop: Any = loop) -> None:
            loop.stop()
            for handle in loop._ready:
                assert not handle.cancelled()
                handle.cancel()
                assert handle.cancelled()
                assert handle._cancelled

        for number, (sock, _) in enumerate(pairs):
            loop.add_reader(sock, seen.append, number)
        make_ready(pairs)
        loop.call_soon(purge)
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen == []
        assert len(loop._selector.get_map()) == 1, "cancelled readers are not waited for"
        loop.close()
        for sock, _ in pairs:
            sock.recv(9)
