"""Shared by the tests of clients: servers as processes, requests to them, and their expected end."""

import contextlib
import functools
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from content import STREAM, body
from support.pages import PORT, ROOT, blocks_of, commands
from support.processes import run
from support.threads import until

import pyepoll

HERE = Path(__file__).parent
PLUGINS = HERE.parent.parent / "examples" / "plugins"
DEADLINE = 30.0
"""Seconds that any one step may take."""

SIZES = (0, 1, 1000, 65_536, 65_537, 3_000_000)
"""Bytes in the bodies that are echoed."""

AT_ONCE = 8
"""Connections at a time."""

COMPLAINT = re.compile(
    r"Traceback|Exception ignored|Warning:|Unhandled|never retrieved|was destroyed|\bERROR\b|CRITICAL"
)
"""Texts that no server may log."""

PACKAGE = Path(pyepoll.__file__).parent.parent


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, signum: int = signal.SIGTERM, status: int = 0) -> None:
        """Tell the server to stop; check that it does, without a complaint or a process left behind."""
        self.process.send_signal(signum)
        assert self.process.wait(DEADLINE) == status, self.log.read_text()
        until(lambda: not session(self.pid), DEADLINE)
        assert not COMPLAINT.search(self.log.read_text()), self.log.read_text()


def session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(entry.parent.name))
    return found


def sockets(pid: int) -> int:
    """How many sockets the processes of a session have open."""
    count = 0
    for process in session(pid):
        with contextlib.suppress(FileNotFoundError):  # It has ended.
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    count += str(fd.readlink()).startswith("socket:")
    return count


@contextlib.contextmanager
def python(tmp_path: Path, *args: str, **environment: str) -> Iterator[Server]:
    """Run ``python ARGS`` in a session of its own until it has printed its address; kill the rest at the end.

    Warnings are errors. The output of the process goes to a file, so that it cannot block.
    """
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *args],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (HERE, PLUGINS, PACKAGE))),
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
        )
    try:
        server = Server(process, 0, log)

        def listening() -> bool:
            assert process.poll() is None, log.read_text()
            match = re.search(r"127\.0\.0\.1:(\d+)\D", log.read_text())
            server.port = int(match[1]) if match else 0
            return bool(server.port)

        until(listening, DEADLINE)
        yield server
    except BaseException:
        sys.stderr.write(log.read_text())  # for the report of the test that failed
        raise
    finally:
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def command_on_page(words: str) -> tuple[str, ...]:
    """The command of docs/clients.md with some words in it, for ``python``, with any port and the tests' app.

    test_pages.py runs it to the letter.
    """
    blocks = [block for block in blocks_of(ROOT / "docs/clients.md") if block.language == "console"]
    (command,) = [command for block in blocks for command, _ in commands(block) if words in command]
    command = command.replace("hello:app", "asgi_app:app").replace("hello_wsgi:app", "wsgi_app:app")
    command = re.sub(r"^(\w+=\S+ )+", "", command.replace(PORT, "0"))
    return ("-m", *shlex.split(command))


def finish(program: str) -> str:
    """Run a program, to which the examples are importable, to its end; return its output."""
    return run(f"import sys; sys.path.append({str(PLUGINS)!r})\n{textwrap.dedent(program)}")


def get(port: int, path: str) -> bytes:
    """The body of one answer, on a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


def runs_on(server: Server) -> dict[str, str]:
    """The classes that the server names; see ``proof.py``."""
    found = json.loads(get(server.port, "/proof"))
    assert isinstance(found, dict)
    return found


def echo(port: int, seed: int, sizes: tuple[int, ...] = SIZES) -> None:
    """Post bodies on one connection, which has to be kept alive, and compare the replies."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.connect()
        kept = connection.sock
        for size in sizes:
            sent = body(seed, size)
            connection.request("POST", "/echo", sent)
            answer = connection.getresponse()
            assert (answer.status, answer.read() == sent) == (200, True)
            assert connection.sock is kept, "the connection was not kept alive"


def stream(port: int) -> None:
    """Get the answer that is sent in many pieces."""
    assert get(port, "/stream") == b"".join(STREAM)


def at_once(*calls: Callable[[], None]) -> None:
    """Make all calls at the same time."""
    barrier = threading.Barrier(len(calls))

    def together(call: Callable[[], None]) -> None:
        barrier.wait(DEADLINE)
        call()

    with ThreadPoolExecutor(len(calls)) as threads:
        for done in [threads.submit(together, call) for call in calls]:
            done.result(DEADLINE)


def exercise(server: Server) -> None:
    """Let many clients ask at once; afterwards the server must have no socket more than before."""
    get(server.port, "/proof")
    until(lambda: settled(server), DEADLINE)
    before = sockets(server.pid)
    echoes = [functools.partial(echo, server.port, seed) for seed in range(AT_ONCE)]
    at_once(*echoes, *[functools.partial(stream, server.port)] * 2)
    until(lambda: sockets(server.pid) <= before, DEADLINE)


def settled(server: Server) -> bool:
    """Whether the server has no connection left."""
    established = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        established += int(fields[1].rpartition(":")[2], 16) == server.port and fields[3] in ("01", "08")
    return not established


QUIETLY = r"import warnings; warnings.filterwarnings('ignore', r'\s*Eventlet is deprecated')"
"""eventlet warns of itself when it is imported."""
