"""Processes to look at in /proc, and helpers for tests of them."""

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from pyepoll import _fdinfo

ME = os.getpid()
NOBODY = 65534

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

STDIN = _fdinfo.FdHolder(ME, 0)

needs_kcmp = pytest.mark.skipif(not _fdinfo._is_same_file(STDIN, STDIN), reason="a sandbox denies kcmp")


@contextlib.contextmanager
def child(program: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program in an interpreter of its own, from when it has printed a line until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "error", "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline(), "it has not come so far"
            yield process
        finally:
            process.kill()


SERVER = """
    import asyncio, time

    async def main():
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())
"""

STALE = """
    import os, sys
    import pyepoll

    ep = pyepoll.Epoll()
    gone, other = os.eventfd(0), os.eventfd(0)
    ep.register(gone, pyepoll.Event.IN)
    ep.register(other, pyepoll.Event.IN)
    kept = os.dup(gone)
    os.close(gone)
    print(gone, kept, ep._instance_fd(), flush=True)
    sys.stdin.read()
"""
