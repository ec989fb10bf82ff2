"""The memory of a connection that is open and idle: ``python -m benchmarks.aio.memory``.

The arguments are FACTORY COUNT [LOAD CERTIFICATE], the last two with TLS.

A fresh interpreter makes some connections, asks the kernel for its real memory, makes ``COUNT`` more, and
asks again; see ``benchmarks/memory.py``. Without TLS one end is a socket of a socket pair; TLS connections
come from ``load.c`` in another process, and have had their handshake. The kernel's own share is not in it.
"""

import asyncio
import ctypes
import os
import pkgutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..machine import allow_fds
from ..measure import spread
from ..memory import PR_SET_THP_DISABLE, real_memory
from ..messages import MESSAGE
from ..report import Bar, Figure
from .loops import OURS, leave_out
from .servers import certificate, missing_for_tls, tls_program

__all__ = ["KINDS", "figures"]

WARM = 20
SECONDS = 60


class Kind(NamedTuple):
    name: str
    tls: bool
    connections: int
    bar: Bar


KINDS = (
    Kind("memory of an idle connection", False, 4000, Bar("<=", 1.1)),
    Kind("memory of an idle TLS connection", True, 300, Bar("<=", 24)),
)


class Idle(asyncio.Protocol):
    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


class Counted(Idle):
    __slots__ = ()
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        Counted.count += 1


async def pairs(count: int) -> float:
    """Return the bytes for each connection, with its socket object, but without the other end."""
    loop = asyncio.get_running_loop()

    # These stay, or their memory would be used again for what is measured.
    before_all = [socket.socketpair() for _ in range(WARM + count)]
    fds = [ours.detach() for ours, _ in before_all]
    kept: list[asyncio.BaseTransport | None] = [None] * len(fds)
    before = 0
    for place, fd in enumerate(fds):
        if place == WARM:
            await asyncio.sleep(0.05)
            before = real_memory()
        kept[place], _ = await loop.create_connection(Idle, sock=socket.socket(fileno=fd))
    await asyncio.sleep(0.05)
    return (real_memory() - before) / count


async def tls(count: int, program: str, certificate: str) -> float:
    import ssl  # Not every Python has it.

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Counted, "127.0.0.1", 0, ssl=context, backlog=socket.SOMAXCONN)
    port = str(server.sockets[0].getsockname()[1])
    loads = []

    async def connect(connections: int) -> None:
        wanted = Counted.count + connections
        sizes = [str(connections), "1", str(SECONDS), MESSAGE, MESSAGE, str(len(MESSAGE))]
        command = [program, port, *sizes]
        loads.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        while Counted.count < wanted:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)

    try:
        await connect(WARM)
        before = real_memory()
        await connect(count)
        return (real_memory() - before) / count
    finally:
        for load in loads:
            load.kill()
            load.wait()


def in_fresh_process(kind: Kind, factory: str, certificate: str) -> float:
    """Return KiB."""
    program = [str(tls_program()), certificate] if kind.tls else []
    child = [sys.executable, "-m", __name__, factory, str(kind.connections), *program]
    done = subprocess.run(child, check=True, capture_output=True, text=True, timeout=SECONDS)
    return float(done.stdout) / 1024


def figures(kind: Kind, factories: Mapping[str, str], rounds: int) -> list[Figure]:
    """Return the figures of the loops that can do it."""
    allow_fds(2 * max(kind.connections for kind in KINDS) + 2 * WARM)
    found = []
    with TemporaryDirectory() as directory:
        pem = certificate(Path(directory)) if kind.tls else ""
        if kind.tls and (why := missing_for_tls(pem)):
            leave_out(kind.name, why)
            return []
        for name, factory in factories.items():
            try:
                values = [in_fresh_process(kind, factory, pem) for _ in range(3 if rounds >= 50 else 1)]
            except subprocess.CalledProcessError as error:
                said = [line for line in error.stderr.splitlines() if line.strip()]
                leave_out(f"{kind.name} on {name}", said[-1] if said else f"status {error.returncode}")
                continue
            except subprocess.TimeoutExpired:
                leave_out(f"{kind.name} on {name}", "no end")
                continue
            bar = kind.bar if name == OURS else None
            title = f"{kind.name}, {name}"
            found.append(Figure("aio", title, spread(values), bar, kind.connections, "KiB"))
    return found


def main() -> None:
    factory, count, *program = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    with asyncio.Runner(loop_factory=pkgutil.resolve_name(factory)) as runner:
        work = tls(int(count), *program) if program else pairs(int(count))
        print(runner.run(work), flush=True)
        # The loop need not close its connections.
        os._exit(0)


if __name__ == "__main__":
    main()
