"""A random walk over the two transports of a pipe: on asyncio's loop and on ours it comes to the same."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.effort import Effort, walks
from support.loops import Plain, complaints, error_text, on, turns

# On some interpreters hypothesis does not find the references to its generator, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")

READER, WRITER = 0, 1
CALLBACKS = ["data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost"]
ACTS = ["close", "abort", "write", "write_eof", "pause_reading", "resume_reading", "switch", "raise"]
KINDS: list[Callable[[bytes], Any]] = [
    bytes,
    bytearray,
    memoryview,
    lambda data: memoryview(data)[::2],
    bytes.hex,
]

SIZES = [0, 1, 10, 5000, 65536, 70_000, 300_000]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(SIZES), st.sampled_from(KINDS)),
    st.tuples(st.sampled_from(["close", "set_protocol"]), st.sampled_from([READER, WRITER])),
    st.tuples(st.sampled_from(["pause_reading", "resume_reading"]), st.just(READER)),
    st.tuples(st.sampled_from(["write_eof", "abort"]), st.just(WRITER)),
    st.tuples(st.just("limits"), st.sampled_from([0, 1, 1000, None])),
    st.tuples(st.just("max_size"), st.sampled_from([1, 1000, 65536, 1_000_000])),
    st.tuples(
        st.just("next"), st.sampled_from(CALLBACKS), st.lists(st.sampled_from(ACTS), min_size=1, max_size=2)
    ),
    st.tuples(st.just("turns"), st.sampled_from([1, 2, 5])),
)


class Walker:
    """Does the steps, and records what does not depend on how a stream is cut."""

    def __init__(self, pair: Callable[[], tuple[int, int]]) -> None:
        self.pair = pair
        self.received = b""
        self.seen: list[Any] = []
        self.refused: list[Any] = []
        self.next: dict[str, list[str]] = {}
        self.written = 0

    def protocol(self, end: int) -> Plain:
        walker = self

        class Walks(Plain):
            def keep(self, data: bytes) -> None:
                walker.received += data
                walker.act(end, "data_received")

            def eof_received(self) -> None:
                walker.seen.append((end, "eof"))
                walker.act(end, "eof_received")

            def pause_writing(self) -> None:
                walker.seen.append((end, "pause"))
                walker.act(end, "pause_writing")

            def resume_writing(self) -> None:
                walker.seen.append((end, "resume"))
                walker.act(end, "resume_writing")

            def connection_lost(self, exc: Exception | None) -> None:
                walker.seen.append((end, "lost", error_text(exc)))
                walker.act(end, "connection_lost")

        return Walks()

    def act(self, end: int, callback: str) -> None:
        for act in self.next.pop(callback, []):
            if act == "raise":
                raise ZeroDivisionError(callback)
            if act == "switch":
                self.call(end, "set_protocol", self.protocol(end))
            elif act == "write":
                self.call(WRITER, "write", self.data(100))
            else:
                self.call(READER if "reading" in act else WRITER if act == "abort" else end, act)

    def call(self, end: int, name: str, *args: Any) -> None:
        transport = self.ends[end]
        if transport.get_protocol() is None or not hasattr(transport, name):
            return
        try:
            getattr(transport, name)(*args)
        except Exception as error:
            self.refused.append((end, name, error_text(error)))

    def data(self, size: int) -> bytes:
        """No two stretches alike."""
        self.written += 1
        return (b"%d:" % self.written * (size // 2 + 1))[:size]

    def step(self, name: str, *args: Any) -> None:
        if name == "write":
            self.call(WRITER, "write", args[1](self.data(args[0])))
        elif name == "set_protocol":
            self.call(args[0], name, self.protocol(args[0]))
        elif name == "limits":
            self.call(WRITER, "set_write_buffer_limits", args[0])
        elif name == "max_size":
            self.ends[READER].max_size = args[0]
        elif name == "next":
            self.next[args[0]] = args[1]
        else:
            self.call(args[0], name)

    async def settle(self) -> None:
        still, before = 0, None
        while still < 6:
            await turns(3)
            now = len(self.received), len(self.seen), self.ends[WRITER].get_write_buffer_size()
            still = still + 1 if now == before else 0
            before = now

    async def walk(self, steps: list[tuple[Any, ...]]) -> dict[str, Any]:
        complained = complaints()
        loop = asyncio.get_running_loop()
        read, write = self.pair()
        connect: Any = loop.connect_read_pipe, loop.connect_write_pipe
        files = open(read, "rb", 0), open(write, "wb", 0)
        self.ends: list[Any] = [
            (await connect[end](lambda end=end: self.protocol(end), files[end]))[0]
            for end in (READER, WRITER)
        ]
        for name, *args in steps:
            if name == "turns":
                await turns(args[0])
            else:
                self.step(name, *args)
                await self.settle()
        states = [(end.is_closing(), end.get_protocol() is None) for end in self.ends]
        # CPython 3.11.2 has no is_reading() of a pipe.
        states += [self.ends[READER]._paused, self.ends[WRITER].get_write_buffer_size()]
        self.next.clear()
        self.call(WRITER, "abort")
        if not self.ends[READER].is_closing():
            self.call(READER, "close")
        await self.settle()
        return {
            "received": self.received,
            "seen": self.seen,
            "refused": self.refused,
            "states": states,
            "complaints": [
                (context["message"].replace("_Unix", ""), error_text(context.get("exception")))
                for context in complained
            ],
            "closed": [file.closed for file in files],
        }


def sockets() -> tuple[int, int]:
    near, far = socket.socketpair()
    return near.detach(), far.detach()


def compare(steps: list[tuple[Any, ...]], pair: Callable[[], tuple[int, int]]) -> dict[str, Any]:
    theirs = on("asyncio", lambda: Walker(pair).walk(steps))
    ours = on("pyepoll", lambda: Walker(pair).walk(steps))
    for name, what in theirs.items():
        assert ours[name] == what, f"{name}: {str(ours[name])[:500]} where asyncio has {str(what)[:500]}"
    return ours


def test_the_walk_observes_each_step() -> None:
    seen = compare(
        [
            ("write", 10, bytes),
            ("next", "pause_writing", ["write", "raise"]),
            ("next", "data_received", ["pause_reading"]),
            ("write", 300_000, bytearray),
            ("resume_reading", READER),
            ("next", "data_received", ["raise"]),
            ("write", 1, memoryview),
            ("write", 1, bytes.hex),
            ("write_eof", WRITER),
        ],
        os.pipe,
    )
    assert len(seen["received"]) == 10 + 300_000 + 100 + 1
    assert seen["seen"] == [
        *((WRITER, "pause"), (WRITER, "resume"), (WRITER, "lost", None)),
        *((READER, "eof"), (READER, "lost", None)),
    ]
    assert [name for _, name, _ in seen["refused"]] == ["write"]
    assert [error for _, error in seen["complaints"]] == [
        "ZeroDivisionError: pause_writing",
        "ZeroDivisionError: data_received",
    ]
    assert seen["closed"] == [True, True]


@pytest.mark.lasts(600)
@pytest.mark.parametrize("pair", [os.pipe, sockets])
def test_random_walks_end_as_on_asyncio(effort: Effort, pair: Callable[[], tuple[int, int]]) -> None:
    @walks(effort, 40, 600)
    @given(st.lists(STEPS, min_size=3, max_size=25))
    def walk(steps: list[tuple[Any, ...]]) -> None:
        compare(steps, pair)

    walk()
