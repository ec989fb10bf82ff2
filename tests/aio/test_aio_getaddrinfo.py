"""loop.getaddrinfo() of numeric hosts and ports: no thread, and the result of socket.getaddrinfo()."""

import asyncio
import itertools
import socket
import sys
from typing import Any

import pytest
from support.loops import on

from pyepoll import aio

HOSTS = [
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "::1",
    "::",
    "FE80::1",
    "fe80:0:0:0::1",
    "::ffff:1.2.3.4",
    "fe80::1%lo",
    "fe80::1%1",
    "2001:db8::1%1",
    None,
]
"""Numeric hosts; getaddrinfo() also takes the next ones for numbers."""
OTHERS = [
    "127.1",
    "127.0.0.01",
    "2130706433",
    "0x7f.1",
    "localhost",
    "1.2.3.4 ",
    "::1\0",
    "",
    b"127.0.0.1",
    "\u0661.1.1.1",
]
PORTS = [None, 0, 80, 65535, "0", "80", "0080", "65535"]
ODD_PORTS = [65536, -1, 2**70, "http", "+80", " 80", "\u0668\u0660", b"80", True, 80.0]
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 999]
TYPES = [
    0,
    socket.SOCK_STREAM,
    socket.SOCK_DGRAM,
    socket.SOCK_RAW,
    77,
    socket.SOCK_STREAM | socket.SOCK_NONBLOCK,
]
PROTOS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP]
FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICSERV | socket.AI_PASSIVE,
    socket.AI_CANONNAME,
    socket.AI_ADDRCONFIG,
    socket.AI_V4MAPPED,
]


async def ask(loop: Any, host: Any, port: Any, **options: int) -> Any:
    try:
        return await loop.getaddrinfo(host, port, **options)
    except Exception as error:
        return type(error), str(error)


def expected(host: Any, port: Any, **options: int) -> Any:
    try:
        return socket.getaddrinfo(host, port, **options)
    except Exception as error:
        return type(error), str(error)


def compare(queries: list[tuple[Any, Any, dict[str, int]]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for host, port, options in queries:
            theirs = expected(host, port, **options)
            for _ in range(2):
                ours = await ask(loop, host, port, **options)
                assert ours == theirs, (host, port, options)
                if isinstance(ours, list):
                    assert [list(map(type, row)) for row in ours] == [list(map(type, row)) for row in theirs]

    on("pyepoll", main)


def test_results_are_those_of_socket_getaddrinfo() -> None:
    options = [
        {"family": family, "type": kind, "proto": proto, "flags": flags}
        for family, kind, proto, flags in itertools.product(FAMILIES, TYPES, PROTOS, FLAGS[:4])
    ]
    hosts = ["127.0.0.1", "::1", "fe80::1%1", None]
    compare([(host, port, each) for host in hosts for port in (None, 80, "80") for each in options])


def test_odd_arguments_too() -> None:
    every: list[Any] = [(host, port, {}) for host in HOSTS for port in PORTS + ODD_PORTS]
    every += [(host, port, {"flags": socket.AI_NUMERICHOST}) for host in OTHERS for port in (None, 80)]
    every += [(host, 80, {"flags": flags}) for host in HOSTS for flags in FLAGS]
    compare(every)


def test_unknown_flags_of_an_address_with_a_scope() -> None:
    compare([("fe80::1%lo", 80, {"flags": flags}) for flags in (-1, 1 << 20)])


def test_numeric_queries_need_no_thread() -> None:
    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        for host in HOSTS:
            await ask(loop, host, 80, type=socket.SOCK_STREAM)
        return loop._default_executor

    assert on("pyepoll", main) is None


@pytest.mark.parametrize("what", ["socket.getaddrinfo", "run_in_executor", "subclass", "debug"])
def test_replacements_are_honoured(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    class Counts(aio.EventLoop):
        def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
            called.append(args[0])
            return super().run_in_executor(executor, func, *args)

    def replaced(host: Any, *args: Any) -> Any:
        called.append(host)
        return ["replaced"]

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        if what == "run_in_executor":
            original = loop.run_in_executor

            def counted(executor: Any, func: Any, *args: Any) -> Any:
                called.append(args[0])
                return original(executor, func, *args)

            loop.run_in_executor = counted
        if what == "debug":
            loop._getaddrinfo_debug = replaced
        return await loop.getaddrinfo("127.0.0.1", 80)

    if what == "socket.getaddrinfo":
        monkeypatch.setattr(socket, "getaddrinfo", replaced)
    kind = Counts if what == "subclass" else aio.EventLoop
    with asyncio.Runner(loop_factory=kind, debug=what == "debug") as runner:
        runner.get_loop().slow_callback_duration = 1000
        runner.run(main())
    assert called == ["127.0.0.1"]


def test_a_closed_loop_raises() -> None:
    loop = aio.new_event_loop()
    loop.close()
    query = loop.getaddrinfo("127.0.0.1", 80)
    with pytest.raises(RuntimeError, match="closed"):
        query.send(None)


def test_hooks_for_audits_see_the_query() -> None:
    seen: list[Any] = []
    active = True

    def hook(name: str, args: Any) -> None:
        if active and name == "socket.getaddrinfo":
            seen.append(args)

    sys.addaudithook(hook)

    async def main() -> None:
        for _ in range(2):
            await ask(asyncio.get_running_loop(), "127.0.0.1", 80)

    on("pyepoll", main)
    active = False
    assert seen[-1] == ("127.0.0.1", 80, 0, 0, 0)
    assert len(seen) in (2, 3)  # The first may have made a template.
