"""Datagram transports do as asyncio's: data, errors, pausing, closing."""

import array
import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from support.loops import Scenario, complaints, ended, error_text, logged, on, plain, same, soon, turns
from support.processes import run

T = TypeVar("T")
FAMILIES = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6, "Unix": socket.AF_UNIX}


class Datagrams(asyncio.DatagramProtocol):
    """Records its calls."""

    transport: Any = None

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.senders: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert type(data) is bytes
        self.seen.append(data)
        self.senders.append(addr)

    def error_received(self, exc: Exception) -> None:
        self.seen.append(error_text(exc))

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", error_text(exc)))

    def lost(self) -> bool:
        return bool(self.seen) and self.seen[-1][0] == "lost"


def bound(family: str, folder: str) -> socket.socket:
    """A socket with an address, that does not block."""
    # Not pathlib.Path: on 3.12 it keeps the parts of each name until it exits, which a test of leaks counts.
    sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    sock.setblocking(False)
    names: dict[str, Any] = {
        "IPv4": ("127.0.0.1", 0),
        "IPv6": ("::1", 0),
        "Unix": f"{folder}/{len(os.listdir(folder))}.sock",
    }
    sock.bind(names[family])
    return sock


@contextlib.asynccontextmanager
async def endpoint(
    protocol: Datagrams, family: str = "IPv4", *, connected: bool = False
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A transport of the running loop, and a socket: its peer, if it is connected."""
    with tempfile.TemporaryDirectory() as folder:
        near, peer = bound(family, folder), bound(family, folder)
        if connected:
            near.connect(peer.getsockname())
        loop = asyncio.get_running_loop()
        transport: Any = (await loop.create_datagram_endpoint(lambda: protocol, sock=near))[0]
        async with ended(transport, peer):
            yield transport, peer


def same_since(version: tuple[int, int], scenario: Scenario[T]) -> T:
    """As same(), but asyncio before that version lacks something that we have on all."""
    return same(scenario) if sys.version_info >= version else on("pyepoll", scenario)


def received(peer: socket.socket) -> list[bytes]:
    """All the datagrams that have come."""
    kept = []
    with contextlib.suppress(BlockingIOError):
        while True:
            kept.append(peer.recv(100_000))
    return kept


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("connected", [False, True])
def test_datagrams_come_with_their_sender_and_go_to_it(family: str, connected: bool) -> None:
    async def scenario() -> Any:
        async with endpoint(seen := Datagrams(), family, connected=connected) as (transport, peer):
            for data in (b"one", b"", b"three", bytes(5000)):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await soon(lambda: len(seen.seen) == 4)
            transport.sendto(b"answer", seen.senders[0])
            transport.sendto(b"again", addr=peer.getsockname())
            transport.sendto(b"", peer.getsockname())
            assert seen.senders == [peer.getsockname()] * 4
            assert [type(part) for part in seen.senders[0]] == [type(part) for part in peer.getsockname()]
            return [list(seen.seen), received(peer)]

    # asyncio sends no empty datagram.
    assert same_since((3, 13), scenario) == [[b"one", b"", b"three", bytes(5000)], [b"answer", b"again", b""]]


def test_each_sender_has_its_own_address() -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder, bound("IPv4", folder) as other:
            async with endpoint(seen := Datagrams()) as (transport, peer):
                senders = [peer, other, other, peer, other]
                for sock in senders:
                    sock.sendto(b"data", transport.get_extra_info("sockname"))
                await soon(lambda: len(seen.seen) == 5)
                assert seen.senders == [sock.getsockname() for sock in senders]
                for address in seen.senders:
                    transport.sendto(b"answer", address)
                assert [len(received(peer)), len(received(other))] == [2, 3]

    same(scenario)


DATA: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"data",
    "bytearray": lambda: bytearray(b"data"),
    "memoryview": lambda: memoryview(b"<data>")[1:-1],
    "memoryview of doubles": lambda: memoryview(array.array("d", [1, 2])),
    "memoryview with gaps": lambda: memoryview(b"d.a.t.a.")[::2],
    "subclass": lambda: type("Bytes", (bytes,), {})(b"data"),
    "array": lambda: array.array("B", b"data"),
    "str": lambda: "data",
    "None": lambda: None,
    "too long": lambda: bytes(70_000),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("connected", [False, True])
def test_data_is_sent_and_refused(kind: str, connected: bool) -> None:
    async def scenario() -> Any:
        complained = complaints()
        async with endpoint(seen := Datagrams(), connected=connected) as (transport, peer):
            address = None if connected else peer.getsockname()
            outcome = None
            try:
                transport.sendto(DATA[kind](), address)
            except Exception as error:
                outcome = type(error)
            await turns()
            return [outcome, list(seen.seen), received(peer), [str(what["exception"]) for what in complained]]

    same(scenario)


ADDRESSES: dict[str, Any] = {
    "none": None,
    "a name": ("localhost", 9),
    "a list": ["127.0.0.1", 9],
    "a text": "127.0.0.1",
    "bytes": (b"127.0.0.1", 9),
    "an empty host": ("", 9),
    "a null": ("127.0.0.1\0", 9),
    "a short host": ("127.1", 9),
    "no number": ("300.0.0.1", 9),
    "too large a port": ("127.0.0.1", 65536),
    "a huge port": ("127.0.0.1", 1 << 70),
    "a negative port": ("127.0.0.1", -1),
    "a port as text": ("127.0.0.1", "9"),
    "a port that is true": ("127.0.0.1", True),
    "one item": ("127.0.0.1",),
    "three items": ("127.0.0.1", 9, 0),
    "IPv6": ("::1", 9),
    "all of IPv6": ("::1", 9, 0, 0),
    "a flow": ("::1", 9, 0xFFFFF, 0),
    "too large a flow": ("::1", 9, 0x100000, 0),
    "a scope": ("::1", 9, 0, 1),
    "too large a scope": ("::1", 9, 0, 1 << 32),
    "five items": ("::1", 9, 0, 0, 0),
    "a zone": ("::1%lo", 9),
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_addresses_are_taken_and_refused(family: str, address: Any) -> None:
    async def scenario() -> Any:
        complained = complaints()
        async with endpoint(seen := Datagrams(), family) as (transport, _):
            outcome = None
            try:
                transport.sendto(b"data", address)
            except Exception as error:
                outcome = error_text(error)
            await turns()
            errors = [error_text(what["exception"]) for what in complained]
            return [
                outcome,
                list(seen.seen),
                errors,
                [what["message"] for what in complained],
                transport.is_closing(),
            ]

    same(scenario)


def test_a_scope_and_a_flow_are_received() -> None:
    async def scenario() -> Any:
        async with endpoint(seen := Datagrams(), "IPv6") as (transport, peer):
            peer.sendto(b"data", transport.get_extra_info("sockname"))
            await soon(lambda: len(seen.seen) == 1)
            host, port, flow, scope = seen.senders[0]
            assert port == peer.getsockname()[1]
            return [host, flow, scope]

    assert same(scenario) == ["::1", 0, 0]


class Refuses(Datagrams):
    def error_received(self, exc: Exception) -> None:
        super().error_received(exc)
        raise ZeroDivisionError


@pytest.mark.parametrize("protocol", [Datagrams, Refuses])
def test_an_icmp_error_is_received(protocol: Callable[[], Datagrams]) -> None:
    async def scenario() -> Any:
        complained = complaints()
        async with endpoint(seen := protocol(), connected=True) as (transport, peer):
            peer.close()
            transport.sendto(b"data")
            await soon(lambda: len(seen.seen) == 1)
            transport.sendto(b"data")
            outcome = None
            try:
                transport.sendto(b"data")
            except ZeroDivisionError as error:
                outcome = error_text(error)
            await turns()
            assert not transport.is_closing()
            return [outcome, list(seen.seen), [type(what["exception"]) for what in complained]]

    same(scenario)


def test_an_error_of_the_protocol_ends_nothing() -> None:
    class Fails(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"fail":
                raise ZeroDivisionError

    async def scenario() -> Any:
        complained = complaints()
        async with endpoint(seen := Fails()) as (transport, peer):
            for data in (b"one", b"fail", b"three"):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await soon(lambda: len(seen.seen) == 3)
            return [list(seen.seen), [type(what["exception"]) for what in complained]]

    assert same(scenario) == [[b"one", b"fail", b"three"], [ZeroDivisionError]]


def test_ctrl_c_leaves_the_callback() -> None:
    class Interrupts(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            raise KeyboardInterrupt

    async def scenario() -> None:
        async with endpoint(Interrupts()) as (transport, peer):
            peer.sendto(b"data", transport.get_extra_info("sockname"))
            await asyncio.sleep(20)

    for loop in ("asyncio", "pyepoll"):
        with pytest.raises(KeyboardInterrupt):
            on(loop, scenario)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_pauses_between_two_datagrams(family: str) -> None:
    class Pauses(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    async def scenario() -> Any:
        async with endpoint(seen := Pauses(), family) as (transport, peer):
            for data in (b"one", b"two", b"three"):
                peer.sendto(data, transport.get_extra_info("sockname"))
            steps = []
            for _ in range(3):
                await soon(lambda: not transport.is_reading())
                await turns()
                steps.append(list(seen.seen))
                transport.resume_reading()
            return steps

    assert same_since((3, 12), scenario) == [[b"one"], [b"one", b"two"], [b"one", b"two", b"three"]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_is_received_after_the_end(family: str, end: str) -> None:
    class Ends(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            getattr(self.transport, end)()

    async def scenario() -> Any:
        async with endpoint(seen := Ends(), family) as (transport, peer):
            for data in (b"one", b"two"):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await soon(seen.lost)
            await turns()
            return [
                list(seen.seen),
                transport.is_closing(),
                transport.is_reading(),
                transport.get_write_buffer_size(),
            ]

    assert same_since((3, 12), scenario) == [[b"one", ("lost", None)], True, False, 0]


def test_a_second_protocol_gets_the_rest() -> None:
    class Hands(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.set_protocol(second)

    second = Datagrams()

    async def scenario() -> Any:
        second.seen.clear()
        async with endpoint(seen := Hands()) as (transport, peer):
            for data in (b"one", b"two"):
                peer.sendto(data, transport.get_extra_info("sockname"))
            await soon(lambda: bool(second.seen))
            assert transport.get_protocol() is second
            transport.close()
            await soon(second.lost)
            return [list(seen.seen), second.seen]

    assert same(scenario) == [[b"one"], [b"two", ("lost", None)]]


def test_a_remote_address_is_the_only_destination() -> None:
    async def scenario() -> Any:
        with tempfile.TemporaryDirectory() as folder, bound("IPv4", folder) as peer:
            loop = asyncio.get_running_loop()
            address = peer.getsockname()
            transport: Any
            for broadcast in (None, True):
                transport, seen = await loop.create_datagram_endpoint(
                    Datagrams, remote_addr=address, family=socket.AF_INET, allow_broadcast=broadcast
                )
                transport.sendto(b"one")
                transport.sendto(b"two", (address[0], address[1]))
                with pytest.raises(ValueError, match="must be None or"):
                    transport.sendto(b"three", ("127.0.0.1", 9))
                transport.close()
                await soon(seen.lost)
            return received(peer)

    assert same(scenario) == [b"one", b"two"] * 2


def test_a_socket_that_is_connected_ignores_the_address() -> None:
    async def scenario() -> Any:
        async with endpoint(Datagrams(), connected=True) as (transport, peer):
            transport.sendto(b"one", ("127.0.0.1", 9))
            transport.sendto(b"two", "no address")
            return received(peer)

    assert same(scenario) == [b"one", b"two"]


def test_sending_after_the_end_warns_at_the_fifth_time() -> None:
    async def scenario() -> Any:
        with tempfile.TemporaryDirectory() as folder, bound("IPv4", folder) as peer, logged() as messages:
            loop = asyncio.get_running_loop()
            transport, seen = await loop.create_datagram_endpoint(Datagrams, remote_addr=peer.getsockname())
            transport.close()
            for _ in range(3):
                transport.sendto(b"data")
            await soon(seen.lost)
            for _ in range(4):
                transport.sendto(b"data")
            return [list(messages), received(peer)]

    assert same(scenario) == [["socket.send() raised exception."] * 3, []]


def test_closing_twice_loses_the_connection_once() -> None:
    async def scenario() -> Any:
        async with endpoint(seen := Datagrams()) as (transport, _):
            for _ in range(2):
                transport.close()
                transport.abort()
            await soon(seen.lost)
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            await turns()
            return list(seen.seen)

    assert same_since((3, 12), scenario) == [("lost", None)]


def test_the_transport_describes_itself() -> None:
    async def scenario() -> Any:
        async with endpoint(seen := Datagrams()) as (transport, _):
            await turns()
            texts = [repr(transport)]
            assert asyncio.DatagramTransport in type(transport).__mro__
            transport.pause_reading()
            texts.append(repr(transport))
            assert transport.get_extra_info("sockname") == transport.get_extra_info("socket").getsockname()
            assert transport.get_extra_info("peername") is None
            assert transport.get_extra_info("other", 7) == 7
            limits = [transport.get_write_buffer_limits()]
            transport.set_write_buffer_limits(high=100)
            limits.append(transport.get_write_buffer_limits())
            transport.close()
            texts.append(repr(transport))
            await soon(seen.lost)
            texts.append(repr(transport))
            return [[plain(text).replace("_Selector", "") for text in texts], limits]

    same_since((3, 12), scenario)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_size_cuts_off(family: str) -> None:
    async def scenario() -> Any:
        async with endpoint(seen := Datagrams(), family) as (transport, peer):
            assert transport.max_size == 256 * 1024
            transport.max_size = 3
            peer.sendto(b"data", transport.get_extra_info("sockname"))
            await soon(lambda: len(seen.seen) == 1)
            return list(seen.seen)

    assert same(scenario) == [b"dat"]


def test_the_fd_is_the_transports() -> None:
    async def scenario() -> None:
        async with endpoint(Datagrams()) as (transport, _):
            with pytest.raises(RuntimeError, match="is used by transport"):
                asyncio.get_running_loop().add_reader(transport.get_extra_info("socket").fileno(), print)

    same(scenario)


class Counts(socket.socket):
    """A socket with methods of its own."""

    def recvfrom(self, *args: Any) -> Any:
        data, address = super().recvfrom(*args)
        return data.upper(), address

    def sendto(self, data: Any, *args: Any) -> int:
        return super().sendto(bytes(data).upper(), *args)


def test_the_methods_of_a_subclass_are_called() -> None:
    async def scenario() -> Any:
        with Counts(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.bind(("127.0.0.1", 0))
            near.setblocking(False)
            seen = Datagrams()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: seen, sock=near)
            with tempfile.TemporaryDirectory() as folder, bound("IPv4", folder) as peer:
                peer.sendto(b"in", near.getsockname())
                await soon(lambda: len(seen.seen) == 1)
                transport.sendto(b"out", seen.senders[0])
                answer = received(peer)
            transport.close()
            await soon(seen.lost)
            return [list(seen.seen), answer]

    assert same(scenario) == [[b"IN", ("lost", None)], [b"OUT"]]


def test_an_audit_hook_sees_the_destination() -> None:
    program = """
    import asyncio, sys
    from pyepoll import aio

    async def main():
        loop = asyncio.get_running_loop()
        local = ("127.0.0.1", 0)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=local)
        transport.sendto(b"data", ("127.0.0.1", 9))
        transport.close()

    def hook(event, args):
        if event == "socket.sendto":
            print(type(args[0]).__name__, args[1])

    sys.addaudithook(hook)
    for factory in (asyncio.SelectorEventLoop, aio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    """
    assert run(program) == "socket ('127.0.0.1', 9)\n" * 2
