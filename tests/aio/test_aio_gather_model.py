"""A random walk over connections of one loop: with gathered writes and without it comes to the same.

Data written by a callback may reach the other end one turn later with gathered writes, if that end is being
read in the same turn. Walks in which that cannot happen are the same to the turn; of the others, the order of
each end's calls is compared, and its data. A walk with much data fills the kernel's buffers: how the data is
cut into pieces then depends on how it was sent.
"""

import array
import asyncio
import fcntl
import re
import socket
import termios
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.effort import Effort, walks
from support.loops import Buffered, Keeps, Plain, error_text, logged

from pyepoll import aio

# On some interpreters hypothesis does not find the references to its generator, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")

Step = tuple[Any, ...]

# Two connections: the ends 0 and 1, and 2 and 3.
ENDS = st.integers(0, 3)
KINDS: list[Callable[[bytes], Any]] = [bytes, bytearray, lambda data: memoryview(bytearray(data))]

# A whole walk fits in a socket's buffer.
SMALL = st.sampled_from([0, 1, 10, 300])
# Data that the socket does not take are never near the high-water mark.
LARGE = st.sampled_from([1, 300, 600_000])

SENDS: dict[str, Callable[[Any], object]] = {
    "get_write_buffer_size": lambda transport: transport.get_write_buffer_size(),
    "fileno": lambda transport: transport.get_extra_info("socket").fileno(),
    "dup": lambda transport: transport.get_extra_info("socket").dup().close(),
    "setsockopt": lambda transport: transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    ),
}
"""Calls after which everything has been sent, and no more."""


class Batch(NamedTuple):
    """The steps of one turn."""

    answers: dict[int, list[Step]]
    """By end, the steps that it takes when it receives data next."""
    callbacks: list[list[Step]]
    leave: str | None
    """``stop`` or ``interrupt``: how the last callback leaves the loop."""
    outside: list[Step]
    """Where it is left, the steps before it is run again."""


def simple(size: st.SearchStrategy[int], end: st.SearchStrategy[int] = ENDS) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.tuples(st.just("write"), end, size, st.sampled_from(range(len(KINDS)))),
        st.tuples(st.just("write"), end, size, st.sampled_from(range(len(KINDS)))),
        st.tuples(st.just("writelines"), end, st.lists(size, max_size=3)),
        st.tuples(st.sampled_from(["pause_reading", "resume_reading"]), end),
        st.tuples(st.sampled_from(["write_eof", "close", "abort", "raise"]), end),
        st.tuples(st.just("set_protocol"), end, st.sampled_from([Plain, Buffered]), st.booleans()),
        st.tuples(st.just("limits"), end, st.sampled_from([0, 1, 1000, None])),
        st.tuples(st.sampled_from(sorted(SENDS)), end),
    )


def batches(size: st.SearchStrategy[int], answer: bool) -> st.SearchStrategy[list[Batch]]:
    def answers(end: int) -> st.SearchStrategy[list[Step]]:
        return st.lists(simple(size, st.just(end)), min_size=1, max_size=3)

    # Of a connection one end answers, on its own transport: it is not read in the turn in which it answers.
    one_end = st.sampled_from([{0}, {1}, {2}, {3}, {0, 2}, {1, 2}])
    answering = one_end.flatmap(lambda ends: st.fixed_dictionaries({end: answers(end) for end in ends}))
    batch = st.builds(
        Batch,
        st.one_of(st.just({}), answering) if answer else st.just({}),
        st.lists(st.lists(simple(size), min_size=1, max_size=4), min_size=1, max_size=3),
        st.sampled_from([None, None, None, "stop", "interrupt"]),
        st.lists(simple(size), max_size=2),
    )
    return st.lists(batch, min_size=2, max_size=7)


class Walk:
    """Takes the steps on one loop, and records what each end observes."""

    def __init__(self, gather: bool) -> None:
        self.loop: Any = aio.new_event_loop(gather_writes=gather)
        self.loop.slow_callback_duration = 1000
        self.loop.set_exception_handler(self.complain)
        self.turn = 0
        self.seen: list[list[Any]] = [[] for _ in range(4)]
        """For each end the (turn, call)s of its protocols; data that comes in one turn is one call."""
        self.refused: list[Any] = []
        self.complaints: list[Any] = []
        self.sent: list[Any] = []
        self.written = [b"", b"", b"", b""]
        self.cut: set[int] = set()
        self.answers: dict[int, list[Step]] = {}
        self.outside: list[Step] = []
        sockets = [end for _ in range(2) for end in socket.socketpair()]
        self.fds = [sock.fileno() for sock in sockets]
        self.ends = [self.connect(end, sock) for end, sock in enumerate(sockets)]

    def connect(self, end: int, sock: socket.socket) -> Any:
        made = self.loop.create_connection(lambda: self.protocol(end, Plain, False), sock=sock)
        return self.loop.run_until_complete(made)[0]

    def complain(self, loop: Any, context: dict[str, Any]) -> None:
        self.complaints.append((self.turn, context["message"], error_text(context["exception"])))

    def protocol(self, end: int, kind: type[Keeps], keep_open: bool) -> Keeps:
        walk, seen = self, self.seen[end]

        class Walks(kind):  # type: ignore[misc, valid-type]
            def keep(self, data: bytes) -> None:
                if seen and seen[-1][0] == walk.turn and type(seen[-1][1]) is bytes:
                    data = seen.pop()[1] + data
                seen.append((walk.turn, data))
                walk.take(walk.answers.pop(end, []), catch=False)

            def pause_writing(self) -> None:
                seen.append((walk.turn, "pause"))

            def resume_writing(self) -> None:
                seen.append((walk.turn, "resume"))

            def eof_received(self) -> bool:
                seen.append((walk.turn, "eof"))
                return keep_open

            def connection_lost(self, exc: Exception | None) -> None:
                seen.append((walk.turn, f"lost: {error_text(exc)}"))

        made: Keeps = Walks()
        if isinstance(made, Buffered):
            made.buffer = bytearray(4096)
        return made

    def received(self, end: int) -> bytes:
        return b"".join(what for _, what in self.seen[end] if type(what) is bytes)

    def open(self, end: int) -> bool:
        return self.ends[end].get_protocol() is not None

    def look(self, end: int) -> None:
        """Account for the data of an end that has sent all that it can, as far as both ends are open."""
        peer = end ^ 1
        if self.open(end) and self.open(peer) and end // 2 not in self.cut:
            unread = array.array("i", [0])
            fcntl.ioctl(self.fds[peer], termios.FIONREAD, unread)
            kept = self.ends[end].get_write_buffer_size()
            assert len(self.received(peer)) + unread[0] + kept == len(self.written[end])
            self.sent.append((self.turn, end, unread[0], kept))

    def data(self, end: int, size: int) -> bytes:
        """No two stretches alike."""
        return (b"%d.%d:" % (end, len(self.written[end])) * (size // 4 + 1))[:size]

    def take(self, steps: list[Step], *, catch: bool = True) -> None:
        for name, end, *args in steps:
            try:
                if self.open(end):
                    self.step(name, end, *args)
            except Exception as error:
                if name == "raise" and not catch:
                    raise
                self.refused.append((self.turn, end, name, error_text(error)))

    def step(self, name: str, end: int, *args: Any) -> None:
        transport = self.ends[end]
        if name == "write":
            data = self.data(end, args[0])
            given = KINDS[args[1]](data)
            self.writes(end, data, lambda: transport.write(given))
            if type(given) is not bytes:
                given[:] = bytes(len(given))
        elif name == "writelines":
            lines = [self.data(end, size) for size in args[0]]
            self.writes(end, b"".join(lines), lambda: transport.writelines(lines))
        elif name == "set_protocol":
            transport.set_protocol(self.protocol(end, *args))
            self.look(end)
        elif name == "limits":
            transport.set_write_buffer_limits(args[0])
            self.look(end)
        elif name in SENDS:
            SENDS[name](transport)
            self.look(end)
        elif name == "raise":
            self.ends_early(end)
            raise ZeroDivisionError
        else:
            if name in ("close", "abort"):
                self.ends_early(end)
            getattr(transport, name)()

    def writes(self, end: int, data: bytes, write: Callable[[], None]) -> None:
        transport = self.ends[end]
        accepted = transport._conn_lost == 0  # Also after close(), while data is kept.
        write()
        if accepted:
            self.written[end] += data
        if not self.open(end ^ 1):
            # Without gathering the error of a write to a closed socket comes in write(): with it, here.
            transport.get_write_buffer_size()
        if accepted and transport._conn_lost > 0:
            self.cut.add(end // 2)

    def ends_early(self, end: int) -> None:
        """Data under way in a connection may be lost."""
        if any(self.written[end] != self.received(end ^ 1) for end in (end, end ^ 1)):
            self.cut.add(end // 2)

    async def take_batch(self, batch: Batch) -> None:
        self.answers.update(batch.answers)
        for steps in batch.callbacks:
            self.loop.call_soon(lambda steps=steps: self.take(steps, catch=False))
        if batch.leave is not None:
            self.outside = batch.outside
            self.loop.call_soon(self.loop.stop if batch.leave == "stop" else self.interrupt)
        await self.turns(1)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.turn += 1

    async def settle(self) -> None:
        """Until nothing moves any more."""
        still, before = 0, None
        while still < 6:
            await self.turns(3)
            sizes = [self.ends[end].get_write_buffer_size() for end in range(4) if self.open(end)]
            now = [sizes, [len(self.received(end)) for end in range(4)], [len(seen) for seen in self.seen]]
            still = still + 1 if now == before else 0
            before = now

    async def take_all(self, batches: list[Batch], *, settle: bool) -> None:
        for batch in batches:
            await self.take_batch(batch)
            if settle:
                await self.settle()
        if not settle:
            # Data may come before a pause of reading, or after it.
            for end in filter(self.open, range(4)):
                self.ends[end].resume_reading()
        await self.settle()

    def run(self, batches: list[Batch], *, settle: bool) -> dict[str, Any]:
        task = self.loop.create_task(self.take_all(batches, settle=settle))
        task.add_done_callback(lambda task: self.loop.stop())
        try:
            while not task.done():
                try:
                    self.loop.run_forever()
                except KeyboardInterrupt:
                    self.refused.append((self.turn, None, "run_forever", "KeyboardInterrupt"))
                # An exception that leaves the loop sends everything.
                for end in range(4):
                    self.look(end)
                outside, self.outside = self.outside, []
                self.take(outside)
            task.result()
            states = [
                (self.ends[end].is_closing(), self.ends[end].is_reading()) if self.open(end) else None
                for end in range(4)
            ]
        finally:
            for end in filter(self.open, range(4)):
                self.ends[end].abort()
            self.loop.run_until_complete(self.settle())
            self.loop.close()
        return {
            "received": [self.received(end) for end in range(4)],
            "seen": self.seen,
            "refused": self.refused,
            "sent": self.sent,
            "complaints": self.complaints,
            "states": states,
        }


class Outcome(NamedTuple):
    at_once: dict[str, Any]
    gathered: dict[str, Any]
    cut: set[int]
    """The connections of which data may have been lost."""


def both(batches: list[Batch], *, settle: bool = True) -> Outcome:
    def run(walk: Walk) -> dict[str, Any]:
        with logged() as warned:
            return {**walk.run(batches, settle=settle), "warned": warned}

    at_once, gathered = Walk(gather=False), Walk(gather=True)
    return Outcome(run(at_once), run(gathered), at_once.cut | gathered.cut)


def without_turns(result: dict[str, Any]) -> dict[str, Any]:
    """The order of the calls at each end, and the refused ones; data of several turns is one call."""
    seen: list[list[Any]] = [[], [], [], []]
    for end, calls in enumerate(result["seen"]):
        for _, what in calls:
            if type(what) is bytes and seen[end] and type(seen[end][-1]) is bytes:
                seen[end][-1] += what
            else:
                seen[end].append(what)
    names = "received", "states", "warned"
    kept = {name: sorted(str(what[1:]) for what in result[name]) for name in ("refused", "complaints")}
    return {"seen": seen, **kept, **{name: result[name] for name in names}}


def check_same(at_once: dict[str, Any], gathered: dict[str, Any]) -> None:
    for name, what in at_once.items():
        assert gathered[name] == what, f"{name}: {str(gathered[name])[:900]} where at once {str(what)[:900]}"


def compare(batches: list[Batch]) -> dict[str, Any]:
    at_once, gathered, _ = both(batches)
    if not any(batch.answers for batch in batches):
        check_same(at_once, gathered)
    check_same(without_turns(at_once), without_turns(gathered))
    return gathered


def calls(outcome: dict[str, Any], end: int, kinds: tuple[str, ...]) -> list[str]:
    """Which error a closed peer causes depends on whether the data was sent before it closed."""
    names = [what for _, what in outcome["seen"][end] if type(what) is str and what.startswith(kinds)]
    return [re.sub("(ConnectionReset|BrokenPipe)Error: .*", "ConnectionError", name) for name in names]


def compare_streams(batches: list[Batch], *, settle: bool = True) -> dict[str, Any]:
    """The streams and, of each kind of calls, the order; of a connection that was cut off, less."""
    at_once, gathered, cut = both(batches, settle=settle)
    for end in range(4):
        one, other = at_once["received"][end], gathered["received"][end]
        shorter = min(len(one), len(other)) if end // 2 in cut else None
        assert one[:shorter] == other[:shorter], f"end {end}: {len(other)} bytes where at once {len(one)}"
        for kinds in (("pause", "resume"), ("eof", "lost")):
            one, other = (calls(outcome, end, kinds) for outcome in (at_once, gathered))
            assert end // 2 in cut or one == other, f"end {end}: {other} where at once {one}"
    if not cut:
        for name in ("refused", "complaints"):
            one, other = (sorted(str(what[1:]) for what in outcome[name]) for outcome in (at_once, gathered))
            assert one == other, f"{name}: {other} where at once {one}"
    return gathered


def test_the_walk_observes_each_step() -> None:
    seen = compare(
        [
            Batch(
                {1: [("writelines", 1, [1, 0, 10]), ("write", 1, 1, 1), ("setsockopt", 1)]},
                [[("write", 0, 10, 0), ("write", 0, 300, 1), ("write", 2, 10, 2)], [("fileno", 0)]],
                None,
                [],
            ),
            Batch({}, [[("write", 0, 1, 0)]], "stop", [("write", 0, 5, 0), ("dup", 0)]),
            Batch({1: [("raise", 1)]}, [[("write", 0, 1, 0)], [("raise", 3)]], "interrupt", []),
            Batch(
                {}, [[("write_eof", 2), ("write", 2, 1, 0)], [("write", 3, 10, 0), ("close", 3)]], None, []
            ),
        ]
    )
    assert [len(data) for data in seen["received"]] == [12, 317, 10, 10]
    assert [what[2:] for what in seen["refused"]] == [
        ("run_forever", "KeyboardInterrupt"),
        ("write", "RuntimeError: Cannot call write() after write_eof()"),
    ]
    assert (0, 0, 310, 0) in seen["sent"]
    assert [message for _, message, _ in seen["complaints"]][1:] == [
        "Fatal error: protocol.data_received() call failed."
    ]
    assert calls(seen, 1, ("lost",)) == ["lost: ZeroDivisionError: "]


def test_the_walk_with_much_data_observes_each_step() -> None:
    seen = compare_streams(
        [
            Batch(
                {1: [("pause_reading", 1), ("write", 1, 600_000, 0)]},
                [[("write", 0, 1, 0), ("write", 0, 600_000, 1), ("write", 0, 300, 0)]],
                None,
                [],
            ),
            Batch({}, [[("resume_reading", 1), ("close", 0), ("write", 0, 5, 0)]], None, []),
        ]
    )
    assert len(seen["received"][1]) == 600_306
    assert len(seen["received"][0]) == 600_000
    assert calls(seen, 0, ("pause", "resume")) == ["pause", "resume"]


@pytest.mark.lasts(900)
@pytest.mark.parametrize("answer", [False, True])
def test_random_walks_are_the_same_with_gathering(answer: bool, effort: Effort) -> None:
    @walks(effort, 15, 1500)
    @given(batches(SMALL, answer))
    def walk(batches: list[Batch]) -> None:
        compare(batches)

    walk()


def quick_only(quick: int, long: int) -> int:
    """Always the same few walks: in others, a turn's delay changes what a later step finds."""
    return quick


def test_random_walks_that_never_pause_are_the_same_with_gathering() -> None:
    """Each turn has new steps, while the data of the last one is on its way."""

    @walks(quick_only, 15, 15)
    @given(batches(SMALL, False))
    def walk(batches: list[Batch]) -> None:
        compare_streams(batches, settle=False)

    walk()


def test_random_walks_with_much_data_are_the_same_with_gathering() -> None:
    @walks(quick_only, 10, 10)
    @given(batches(LARGE, True))
    def walk(batches: list[Batch]) -> None:
        compare_streams(batches)

    walk()
