"""Event is an IntFlag with the ``&`` of int, and its table shows the events that the kernel reports."""

import ast
import contextlib
import copy
import inspect
import itertools
import os
import pickle
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fds import Pipe
from support.threads import until

import pyepoll
import pyepoll._event
from pyepoll import Event

NAMES = "IN OUT PRI ERR HUP RDHUP RDNORM RDBAND WRNORM WRBAND MSG ET ONESHOT EXCLUSIVE WAKEUP".split()
PAIRS = [a | b for a, b in itertools.combinations(Event, 2)]

# The enum.


def test_members_are_the_constants() -> None:
    assert list(Event.__members__) == NAMES
    assert {name: int(Event[name]) for name in NAMES} == {
        name: getattr(pyepoll, f"EPOLL{name}") for name in NAMES
    }


def test_every_member_has_one_line_of_documentation() -> None:
    (tree,) = [
        node
        for node in ast.parse(inspect.getsource(pyepoll._event)).body
        if isinstance(node, ast.ClassDef) and node.name == "Event"
    ]
    documented = {
        target.id: after.value.value
        for node, after in itertools.pairwise(tree.body)
        if isinstance(node, ast.Assign)
        and isinstance(target := node.targets[0], ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }
    assert set(NAMES) <= set(documented)
    assert all(documented[name].splitlines()[0].endswith(".") for name in NAMES)


@pytest.mark.parametrize("other", [Event.IN, Event.OUT, 1, 4, 0, Event.IN | Event.OUT, ~Event.OUT])
@pytest.mark.parametrize("event", [Event.IN, Event.IN | Event.OUT, Event(0)])
def test_and_is_that_of_int(event: Event, other: int) -> None:
    for result in (event & other, other & event):
        assert type(result) is int
        assert result == int(event) & int(other)


def test_and_leaves_an_int_and_event_names_it_again() -> None:
    mask: int = Event.IN | Event.OUT
    mask &= ~Event.OUT
    assert type(mask) is int
    assert Event(mask) is Event.IN


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_other_operators_are_those_of_the_enum(pair: Event) -> None:
    a, b = pair
    assert type(pair) is Event
    assert type(pair ^ b) is Event
    assert type(~pair) is Event
    assert (pair ^ b) is a
    assert (int(a) | b) is pair
    assert (a | int(b)) is pair
    assert a in pair
    assert pair not in a
    assert len(pair) == 2
    assert ~pair & pair == 0
    assert ~~pair == pair


def test_boundary_keeps_unknown_bits() -> None:
    odd = Event(1 << 27 | 1)
    assert type(odd) is Event
    assert int(odd) == 1 << 27 | 1
    assert Event.IN in odd


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_and_copy_give_the_member(protocol: int) -> None:
    for event in [*Event, *PAIRS, Event(0)]:
        assert pickle.loads(pickle.dumps(event, protocol)) is event
        assert copy.copy(event) is event
        assert copy.deepcopy(event) is event


def test_text_names_each_flag() -> None:
    for name in NAMES:
        assert str(Event[name]) == f"{Event[name]}" == name
        assert name in repr(Event[name])
    for pair in PAIRS:
        a, b = pair
        assert str(pair) == f"{a}|{b}"
    both = Event.IN | Event.OUT
    assert f"{both} {both:d} {both:#x}" == "IN|OUT 5 0x5"
    assert "IN|OUT" in repr(both)
    assert str(Event(0)) == "0"
    assert str(Event(1 << 27)) == "0x8000000"


def test_members_are_ints() -> None:
    assert isinstance(Event.IN, int)
    assert Event.IN | Event.OUT == pyepoll.EPOLLIN | pyepoll.EPOLLOUT
    assert {Event.IN: "in"}[pyepoll.EPOLLIN] == "in"  # type: ignore[index]


# The events that a wait yields.


@pytest.mark.parametrize("mask", [Event.IN, Event.OUT, Event.IN | Event.OUT])
def test_a_wait_yields_the_member(ep: pyepoll.Epoll[int], eventfd: Callable[..., int], mask: Event) -> None:
    fd = eventfd(1)
    ep.register(fd, int(mask))
    for ((polled, a),) in (ep.poll(0), list(ep.wait(0)), [next(iter(ep))]):
        assert polled == fd
        assert a is mask
    assert ep.registrations[fd][0] is mask


# The predicates.


@pytest.mark.parametrize(
    ("predicate", "bits"),
    [
        ("readable", "IN RDNORM PRI RDHUP HUP ERR"),
        ("writable", "OUT WRNORM HUP ERR"),
        ("hangup", "RDHUP HUP"),
        ("error", "ERR"),
    ],
)
def test_predicates_match_the_bits(predicate: str, bits: str) -> None:
    for name in NAMES:
        assert getattr(Event[name], predicate) is (name in bits.split())
    assert getattr(Event(0), predicate) is False


# The table.

Scenario = Callable[[contextlib.ExitStack], Iterator[Any]]


def new_pipe(stack: contextlib.ExitStack) -> Pipe:
    pipe = Pipe()
    stack.callback(pipe.close)
    return pipe


def new_socket(stack: contextlib.ExitStack, *args: int) -> socket.socket:
    sock = stack.enter_context(socket.socket(*args))
    sock.setblocking(False)
    return sock


def new_pair(stack: contextlib.ExitStack, family: int = socket.AF_INET) -> list[socket.socket]:
    if family == socket.AF_UNIX:
        pair = list(socket.socketpair())
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            pair = [socket.create_connection(server.getsockname()), server.accept()[0]]
    for sock in pair:
        sock.setblocking(False)
        stack.enter_context(sock)
    return pair


def pipe_data(stack: contextlib.ExitStack) -> Iterator[Any]:
    pipe = new_pipe(stack)
    os.write(pipe.write, b"x")
    yield pipe.read


def pipe_writers_closed(stack: contextlib.ExitStack) -> Iterator[Any]:
    for data in (b"", b"x"):
        pipe = new_pipe(stack)
        os.write(pipe.write, data)
        pipe.close(pipe.write)
        yield pipe.read


def pipe_room(stack: contextlib.ExitStack) -> Iterator[Any]:
    yield new_pipe(stack).write


def pipe_readers_closed(stack: contextlib.ExitStack) -> Iterator[Any]:
    for full in (False, True):
        pipe = new_pipe(stack)
        if full:
            pipe.fill()
        pipe.close(pipe.read)
        yield pipe.write


def on_both_families(change: Callable[[socket.socket, socket.socket], object]) -> Scenario:
    def scenario(stack: contextlib.ExitStack) -> Iterator[Any]:
        this, peer = new_pair(stack, socket.AF_UNIX)
        change(this, peer)
        tcp, tcp_peer = new_pair(stack)
        change(tcp, tcp_peer)
        yield this, tcp

    return scenario


def shut_both(this: socket.socket, peer: socket.socket) -> None:
    this.shutdown(socket.SHUT_WR)
    peer.shutdown(socket.SHUT_WR)


def unix_closed(stack: contextlib.ExitStack) -> Iterator[Any]:
    this, peer = new_pair(stack, socket.AF_UNIX)
    peer.close()
    yield this


def tcp_closed(stack: contextlib.ExitStack) -> Iterator[Any]:
    this, peer = new_pair(stack)
    peer.close()
    yield this


def closed_with_our_data(this: socket.socket, peer: socket.socket) -> None:
    this.send(b"x")
    until(lambda: bool(select.select([peer], [], [], 0)[0]))
    peer.close()


def tcp_reset(stack: contextlib.ExitStack) -> Iterator[Any]:
    this, peer = new_pair(stack)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    yield this


def tcp_connecting(stack: contextlib.ExitStack) -> Iterator[Any]:
    server = new_socket(stack)
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    # The first fills the backlog, so the kernel drops the second's SYN, which is sent again after a second.
    new_socket(stack).connect_ex(server.getsockname())
    sock = new_socket(stack)
    sock.connect_ex(server.getsockname())
    yield sock
    server.accept()[0].close()
    yield sock


def tcp_refused(stack: contextlib.ExitStack) -> Iterator[Any]:
    bound = new_socket(stack)
    bound.bind(("127.0.0.1", 0))
    sock = new_socket(stack)
    sock.connect_ex(bound.getsockname())
    yield sock


def tcp_new(stack: contextlib.ExitStack) -> Iterator[Any]:
    yield new_socket(stack)


def listening(stack: contextlib.ExitStack) -> Iterator[Any]:
    server = new_socket(stack)
    server.bind(("127.0.0.1", 0))
    server.listen()
    new_socket(stack).connect_ex(server.getsockname())
    yield server


# For each row of the docstring, by its first column: the fds that show its masks, in the row's order.
SCENARIOS: dict[str, Scenario] = {
    "pipe, read end: data": pipe_data,
    "pipe, read end: all writers closed": pipe_writers_closed,
    "pipe, write end: room": pipe_room,
    "pipe, write end: all readers closed": pipe_readers_closed,
    "stream socket: data": on_both_families(lambda this, peer: peer.send(b"x")),
    "stream socket: the peer shut down writing": on_both_families(
        lambda this, peer: peer.shutdown(socket.SHUT_WR)
    ),
    "stream socket: this end shut down writing": on_both_families(
        lambda this, peer: this.shutdown(socket.SHUT_WR)
    ),
    "stream socket: both ends shut down": on_both_families(shut_both),
    "Unix stream socket: the peer closed": unix_closed,
    "TCP socket: the peer closed": tcp_closed,
    "stream socket: so, with our data unread": on_both_families(closed_with_our_data),
    "TCP socket: the peer reset the connection": tcp_reset,
    "TCP socket: connecting": tcp_connecting,
    "TCP socket: the connection was refused": tcp_refused,
    "TCP socket: neither connected nor listening": tcp_new,
    "listening socket: a connection to accept": listening,
}


def documented_rows() -> dict[str, list[Event]]:
    """The docstring's table: the first column, and the masks quoted in the second."""
    (table,) = re.findall(r"=\n(.*?)\n *=", inspect.getdoc(Event) or "", re.DOTALL)[1:]
    rows = {}
    for line in table.splitlines():
        when, reports = re.split(r"\s{2,}", line.strip())
        rows[when] = [
            Event(sum(Event[name] for name in mask.split(" | ") if name))
            for mask in re.findall(r"``([^`]+)``|nothing", reports)
        ]
    return rows


def test_every_row_has_a_scenario() -> None:
    assert documented_rows().keys() == SCENARIOS.keys()


@pytest.mark.parametrize("row", SCENARIOS)
def test_table_matches_the_kernel(ep: pyepoll.Epoll[Any], row: str) -> None:
    with contextlib.ExitStack() as stack:
        for expected, state in zip(documented_rows()[row], SCENARIOS[row](stack), strict=True):
            for file in state if isinstance(state, tuple) else (state,):
                ep.register(file, Event.IN | Event.OUT | Event.RDHUP)
                # The last of several changes may still be on its way over loopback.
                seen = Event(0)
                for _ in range(100):
                    seen = next((events for _, events in ep.poll(0.05)), Event(0))
                    if seen == expected:
                        break
                assert seen == expected
                ep.unregister(file)
                check_predicates(file if isinstance(file, int) else file.fileno(), seen)


def check_predicates(fd: int, seen: Event) -> None:
    """Compare with a real read and write: a call that succeeds was promised, one that would block was not."""
    for promised, attempt in (
        (seen.readable, lambda: os.read(fd, 1)),
        (seen.writable, lambda: os.write(fd, b"x")),
    ):
        try:
            attempt()
            assert promised
        except BlockingIOError:
            assert not promised
        except OSError:  # It fails at once, as it would with nothing reported (a listening socket's write).
            pass


def test_predicates_with_a_message_in_the_error_queue() -> None:
    """A healthy socket says ERR alone: the predicates are true, and a blocking call would sleep."""
    zerocopy, msg_zerocopy = 60, 0x4000000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    with sender, receiver, pyepoll.Epoll[int]() as ep:
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, zerocopy, 1)
        sender.send(bytes(1000), msg_zerocopy)
        receiver.recv(1000, socket.MSG_WAITALL)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        ep.register(sender, Event.IN | Event.OUT)
        until(lambda: ep.poll(0) != [])
        ((_, events),) = ep.poll(0)
        assert events == Event.ERR
        assert (events.readable, events.writable, events.error, events.hangup) == (True, True, True, False)
        for call in (lambda: sender.recv(1), lambda: sender.send(b"x")):
            with pytest.raises(BlockingIOError):
                call()
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert ep.poll(0) == [(sender.fileno(), Event.ERR)]
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.recvmsg(0, 1000, socket.MSG_ERRQUEUE)
        assert ep.poll(0) == []
