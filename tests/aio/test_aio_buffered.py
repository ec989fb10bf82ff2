"""The calls of a BufferedProtocol and its buffers: as with asyncio's transport."""

import array
import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Buffered, Plain, complaints, connection, error_text, on, plain, same, soon, turns

BUFFERS: dict[str, Callable[[], Any]] = {
    "a bytearray": lambda: bytearray(8),
    "a memoryview": lambda: memoryview(bytearray(8)),
    "a part": lambda: memoryview(bytearray(8))[2:5],
    "an array of 4 bytes each": lambda: array.array("I", [0, 0]),
    "an empty bytearray": lambda: bytearray(),
    "an empty memoryview": lambda: memoryview(b""),
    "bytes": lambda: b"12345678",
    "a read-only memoryview": lambda: memoryview(b"12345678"),
    "a memoryview with gaps": lambda: memoryview(bytearray(8))[::2],
    "a released memoryview": lambda: released(),
    "None": lambda: None,
    "a number": lambda: 5,
    "str": lambda: "12345678",
    "a list": lambda: [1, 2],
    "a length that fails": lambda: Length(ZeroDivisionError("of its length")),
    "a length of 0": lambda: Length(0),
    "a length below 0": lambda: Length(-1),
    "a length that is no number": lambda: Length("1"),
    "a length and no buffer": lambda: Length(3),
    "a length that is not the buffer's": lambda: Longer(8),
}


class Length:
    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return self.length  # type: ignore[no-any-return]


class Longer(bytearray):
    def __len__(self) -> int:
        return 2


def released() -> memoryview:
    view = memoryview(bytearray(8))
    view.release()
    return view


@pytest.mark.parametrize("what", BUFFERS)
def test_each_kind_of_buffer_is_filled(what: str) -> None:
    class Gives(Buffered):
        total = 0

        def get_buffer(self, sizehint: int) -> Any:
            self.seen.append(("get_buffer", sizehint))
            self.given = BUFFERS[what]()
            return self.given

        def buffer_updated(self, nbytes: int) -> None:
            self.seen.append((type(nbytes), nbytes, bytes(self.given)))
            self.total += nbytes

    async def scenario() -> list[Any]:
        complained = complaints()
        async with connection(seen := Gives()) as (transport, peer):
            peer.send(b"123456789abc")
            peer.send(b"def")
            await soon(lambda: seen.total == 15 or seen.lost())
            for context in complained:
                assert context["transport"] is transport
                assert context["protocol"] is seen
            contexts = [(context["message"], error_text(context["exception"])) for context in complained]
            return [contexts, seen.seen]

    contexts, seen = same(scenario)
    fine = what in list(BUFFERS)[:4] or "not the buffer's" in what
    assert (not contexts) is fine
    if not fine:
        assert seen[:2] == ["made", ("get_buffer", -1)]
        assert seen[2][0] == "lost"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no class in Python can be a buffer")
@pytest.mark.parametrize("fails", [True, False])
def test_a_buffer_made_in_python_is_filled(fails: bool) -> None:
    order: list[str] = []

    class Own:
        def __init__(self) -> None:
            self.room = bytearray(8)

        def __len__(self) -> int:
            return 8

        def __buffer__(self, flags: int) -> memoryview:
            order.append("taken")
            if fails:
                raise ZeroDivisionError
            return memoryview(self.room)

        def __release_buffer__(self, view: memoryview) -> None:
            order.append("released")
            view.release()

    class Gives(Buffered):
        def __init__(self) -> None:
            super().__init__()
            self.own = Own()

        def get_buffer(self, sizehint: int) -> Any:
            return self.own

        def buffer_updated(self, nbytes: int) -> None:
            order.append("updated")
            self.keep(bytes(self.own.room[:nbytes]))

    async def scenario() -> list[Any]:
        order.clear()
        complained = complaints()
        async with connection(seen := Gives()) as (_, peer):
            peer.send(b"data")
            await soon(lambda: seen.has(4) or seen.lost())
            return [order[:3], seen.seen, [error_text(context["exception"]) for context in complained]]

    order_seen, _, _ = same(scenario)
    assert order_seen == (["taken"] if fails else ["taken", "released", "updated"])


def test_the_buffer_is_not_kept() -> None:
    """The protocol may reuse the buffer as soon as buffer_updated() is called."""

    class Resizes(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.buffer.clear()
            self.buffer.extend(bytes(5))

    async def scenario() -> list[Any]:
        async with connection(seen := Resizes()) as (_, peer):
            peer.send(b"123456789" * 10)
            await soon(lambda: seen.has(90))
            return seen.seen

    assert same(scenario) == ["made", b"123456789" * 10, ("lost", None)]


@pytest.mark.parametrize("what", ["another protocol", "a plain protocol", "closed", "aborted", "paused"])
def test_get_buffer_may_change_the_transport(what: str) -> None:
    """asyncio decides about data that is received then."""
    other, simple = Buffered(), Plain()

    class Acts(Buffered):
        def get_buffer(self, sizehint: int) -> Any:
            if what == "another protocol":
                self.transport.set_protocol(other)
            elif what == "a plain protocol":
                self.transport.set_protocol(simple)
            elif what == "closed":
                self.transport.close()
            elif what == "aborted":
                self.transport.abort()
            else:
                self.transport.pause_reading()
            return self.buffer

    async def scenario() -> list[Any]:
        nonlocal other, simple
        other, simple = Buffered(), Plain()
        complained = complaints()
        async with connection(seen := Acts()) as (transport, peer):
            other.buffer = seen.buffer
            peer.send(b"data")
            await turns(10)
            transport.resume_reading()
            if transport.get_protocol() is not None and not transport.is_closing():
                peer.send(b"more")
            await turns(10)
            said = [(context["message"], error_text(context["exception"])) for context in complained]
            return [said, seen.seen, other.seen, simple.seen]

    same(scenario)


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError, OSError, asyncio.CancelledError, KeyboardInterrupt, SystemExit]
)
def test_exceptions_of_a_buffered_protocol_are_handled_as_asyncios(
    method: str, error: type[BaseException]
) -> None:
    class Fails(Buffered):
        pass

    def fail(*args: Any) -> None:
        raise error("on purpose")

    setattr(Fails, method, fail)

    def outcome() -> Any:
        complained: list[Any] = []
        seen = Fails()

        async def scenario() -> list[Any]:
            kept = complaints()
            async with connection(seen) as (_, peer):
                peer.send(b"data")
                try:
                    await soon(seen.lost)
                finally:
                    complained.extend(
                        (plain(c["message"]), error_text(c["exception"]), sorted(c)) for c in kept
                    )
                return [seen.seen]

        return scenario, complained

    if issubclass(error, KeyboardInterrupt | SystemExit):
        for name in "asyncio", "pyepoll":
            scenario, complained = outcome()
            with pytest.raises(error, match="on purpose"):
                on(name, scenario)
            assert complained == []
    else:

        async def both() -> list[Any]:
            scenario, complained = outcome()
            return [await scenario(), complained]

        (seen,), complained = same(both)
        assert seen[-1][0] == "lost"
        assert [words for words, _, _ in complained] == (
            [] if error is OSError else [f"Fatal error: protocol.{method}() call failed."]
        )
