"""A random walk over a connected pair of transports: on asyncio's loop and on ours it comes to the same."""

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.effort import Effort, walks
from support.loops import Buffered, Keeps, Plain, complaints, error_text, on, reset, tcp_pair, turns
from support.processes import SANITIZED

from pyepoll import aio

# On some interpreters hypothesis does not find the references to its generator, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:It looks like `register_random` was passed")

ENDS = st.integers(0, 1)
KINDS = [bytes, bytearray, memoryview]

# The steps at one end, and those of the peer, which may be a socket of no loop.
STEPS = st.one_of(
    st.tuples(
        st.just("write"), ENDS, st.sampled_from([0, 1, 10, 5000, 70_000, 600_000]), st.sampled_from(range(3))
    ),
    st.tuples(
        st.just("writelines"), ENDS, st.lists(st.sampled_from([1, 10, 5000, 300_000]), min_size=1, max_size=3)
    ),
    st.tuples(st.sampled_from(["pause_reading", "resume_reading", "write_eof", "close", "abort"]), ENDS),
    st.tuples(st.just("set_protocol"), ENDS, st.sampled_from([Plain, Buffered]), st.booleans()),
    st.tuples(st.just("limits"), ENDS, st.sampled_from([0, 1, 1000, None])),
    st.tuples(st.just("turns"), st.sampled_from([1, 2, 5])),
    st.tuples(
        st.just("in_data_received"),
        ENDS,
        st.sampled_from(["pause_reading", "write", "close", "abort", "raise", "switch"]),
    ),
    st.tuples(st.just("settle")),
)


def writelines(transport: Any, lines: list[bytes]) -> None:
    """As asyncio's should be: before 3.14 it never pauses the protocol, and raises after close()."""
    if isinstance(transport, aio.SocketTransport):
        return transport.writelines(lines)
    try:
        transport.write(b"".join(lines))
    except RuntimeError:
        transport.writelines(lines)


class Walker:
    """Does the steps, and records the observations of each end that do not depend on how a stream is cut."""

    def __init__(self, tcp: bool) -> None:
        self.tcp = tcp
        self.refused: list[Any] = []
        self.seen: list[list[Any]] = [[], []]
        self.received = [b"", b""]
        self.next: list[str | None] = [None, None]
        self.written = 0

    def protocol(self, end: int, kind: type[Keeps], keep_open: bool) -> Keeps:
        walker = self

        class Walks(kind):  # type: ignore[misc, valid-type]
            def keep(self, data: bytes) -> None:
                walker.received[end] += data
                act, walker.next[end] = walker.next[end], None
                walker.act(end, act)

            def pause_writing(self) -> None:
                walker.seen[end].append("pause")

            def resume_writing(self) -> None:
                walker.seen[end].append("resume")

            def eof_received(self) -> bool:
                walker.seen[end].append("eof")
                return keep_open

            def connection_lost(self, exc: Exception | None) -> None:
                walker.seen[end].append(("lost", type(exc).__name__))

        made: Keeps = Walks()
        if isinstance(made, Buffered):
            made.buffer = bytearray(4096)
        return made

    def act(self, end: int, act: str | None) -> None:
        if act == "write":
            self.say("write", lambda: self.ends[end].write(b"answer"))
        elif act == "raise":
            raise ZeroDivisionError
        elif act == "switch":
            self.ends[end].set_protocol(self.protocol(end, Plain, False))
        elif act is not None:
            getattr(self.ends[end], act)()

    def say(self, name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:
            self.refused.append((name, error_text(error)))

    def data(self, size: int) -> bytes:
        """No two stretches alike."""
        self.written += 1
        return (b"%d:" % self.written * (size // 2 + 1))[:size]

    def step(self, name: str, *args: Any) -> None:
        transport = self.ends[args[0]] if args and name != "turns" else None
        if transport is None or transport.get_protocol() is None:
            return
        if name == "write":
            data = KINDS[args[2]](self.data(args[1]))
            self.say(name, lambda: transport.write(data))
        elif name == "writelines":
            lines = [self.data(size) for size in args[1]]
            self.say(name, lambda: writelines(transport, lines))
        elif name == "set_protocol":
            transport.set_protocol(self.protocol(args[0], args[1], args[2]))
        elif name == "limits":
            transport.set_write_buffer_limits(args[1])
        elif name == "in_data_received":
            self.next[args[0]] = args[1]
        else:
            getattr(transport, name)()

    async def settle(self) -> None:
        """Until nothing moves any more."""
        still, before = 0, None
        while still < 6:
            await turns(3)
            now = ([len(data) for data in self.received], [len(seen) for seen in self.seen])
            now += ([end.get_write_buffer_size() for end in self.ends if end.get_protocol() is not None],)  # type: ignore[assignment]
            still = still + 1 if now == before else 0
            before = now

    async def walk(self, steps: list[tuple[Any, ...]]) -> dict[str, Any]:
        complained = complaints()
        loop = asyncio.get_running_loop()
        pair = tcp_pair() if self.tcp else socket.socketpair()
        protocols = [self.protocol(end, Plain, False) for end in range(2)]
        self.ends: list[Any] = [
            (await loop.create_connection(lambda end=end: protocols[end], sock=pair[end]))[0]  # type: ignore[misc]
            for end in range(2)
        ]
        for name, *args in steps:
            if name == "turns":
                await turns(args[0])
            elif name == "settle":
                await self.settle()
            else:
                self.step(name, *args)
                # Each step has its effect: how far a loop has come meanwhile does not matter.
                await self.settle()
        states = [
            (end.is_closing(), end.is_reading(), end.get_write_buffer_size() > 0)
            if end.get_protocol() is not None
            else None
            for end in self.ends
        ]
        for end in self.ends:
            if end.get_protocol() is not None:
                end.abort()
        await self.settle()
        return {
            "received": self.received,
            "seen": self.seen,
            "refused": self.refused,
            "states": states,
            "complaints": [(context["message"], error_text(context["exception"])) for context in complained],
        }


def compare(steps: list[tuple[Any, ...]], tcp: bool) -> dict[str, Any]:
    theirs = on("asyncio", lambda: Walker(tcp).walk(steps))
    ours = on("pyepoll", lambda: Walker(tcp).walk(steps))
    for name, what in theirs.items():
        assert ours[name] == what, f"{name}: {str(ours[name])[:500]} where asyncio has {str(what)[:500]}"
    return ours


def test_the_walk_observes_each_step() -> None:
    seen = compare(
        [
            ("write", 0, 10, 0),
            ("in_data_received", 1, "write"),
            ("write", 0, 600_000, 0),
            ("set_protocol", 0, Buffered, True),
            ("writelines", 1, [1, 10]),
            ("write_eof", 1),
            ("write", 1, 1, 0),
            ("write", 0, 1, 1),
            ("in_data_received", 1, "raise"),
            ("write", 0, 1, 2),
        ],
        tcp=False,
    )
    assert len(seen["received"][1]) == 10 + 600_000 + 2
    assert len(seen["received"][0]) == 6 + 11
    assert seen["seen"][0][-2:] != []
    assert "eof" in seen["seen"][0]
    assert seen["seen"][1][-1] == ("lost", "ZeroDivisionError")
    assert [name for name, _ in seen["refused"]] == ["write"]
    assert [message for message, _ in seen["complaints"]] == [
        "Fatal error: protocol.data_received() call failed."
    ]


@pytest.mark.lasts(600)
def test_random_walks_end_as_on_asyncio(effort: Effort) -> None:
    @walks(effort, 40, 1500)
    @given(st.lists(STEPS, min_size=3, max_size=25))
    def walk(steps: list[tuple[Any, ...]]) -> None:
        compare(steps, tcp=False)

    walk()


@pytest.mark.lasts(600)
@pytest.mark.skipif(SANITIZED, reason="a slow run fills socket buffers differently")
def test_random_walks_with_a_plain_socket_end_as_on_asyncio(effort: Effort) -> None:
    """One end is a TCP socket that sends, reads and resets as it likes."""
    acts = st.one_of(
        st.tuples(st.just("send"), st.sampled_from([1, 1000, 100_000])),
        st.tuples(st.just("read"), st.sampled_from([1, 1000, 1_000_000])),
        st.tuples(st.just("write"), st.sampled_from([1, 1000, 100_000])),
        st.tuples(
            st.sampled_from(
                ["pause_reading", "resume_reading", "write_eof", "close", "shut", "reset", "finish"]
            )
        ),
    )

    async def scenario(steps: list[tuple[Any, ...]], kind: type[Keeps]) -> list[Any]:
        complained = complaints()
        near, peer = tcp_pair()
        peer.setblocking(False)
        seen = kind(True)
        transport: Any = (await asyncio.get_running_loop().create_connection(lambda: seen, sock=near))[0]
        got, refused, open_ = b"", [], True
        for name, *args in steps:
            try:
                if name == "send" and open_:
                    peer.send(b"." * args[0])
                elif name == "read" and open_:
                    got += peer.recv(args[0])
                elif name == "shut" and open_:
                    peer.shutdown(socket.SHUT_WR)
                elif name in ("reset", "finish") and open_:
                    open_ = False
                    reset(peer) if name == "reset" else peer.close()
                elif name == "write":
                    transport.write(b"-" * args[0])
                elif (
                    name in ("pause_reading", "resume_reading", "write_eof", "close")
                    and transport.get_protocol() is not None
                ):
                    getattr(transport, name)()
            except BlockingIOError:
                pass
            except Exception as error:
                refused.append((name, error_text(error)))
            await turns(30)
        state = transport.is_closing(), transport.is_reading()
        peer.close()
        if transport.get_protocol() is not None:
            transport.abort()
        await turns(30)
        return [state, got, refused, seen.seen, [error_text(context["exception"]) for context in complained]]

    @walks(effort, 40, 1500)
    @given(st.lists(acts, min_size=3, max_size=20), st.sampled_from([Plain, Buffered]))
    def walk(steps: list[tuple[Any, ...]], kind: type[Keeps]) -> None:
        theirs = on("asyncio", lambda: scenario(steps, kind))
        ours = on("pyepoll", lambda: scenario(steps, kind))
        # How much of what was sent TCP has passed on at a given moment varies.
        common = min(len(ours[1]), len(theirs[1]))
        for each in ours, theirs:
            each[1] = each[1][:common]
        assert ours == theirs

    walk()
