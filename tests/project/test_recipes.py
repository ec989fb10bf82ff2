"""The servers of the tutorial and of the how-to guides withstand clients that do not behave."""

import contextlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.guard import started
from support.pages import PORT, ROOT, blocks_of, connect, free_port

TUTORIAL = {block.program: block.text for block in blocks_of(ROOT / "docs/tutorial.md") if block.program}
(MAIN_LOOP,) = [
    block.text for block in blocks_of(ROOT / "docs/howto/main-loop.md") if "class Connection" in block.text
]
# The page's own use of its server ends with its client.
MAIN_LOOP_SERVER = f"""{MAIN_LOOP.partition("loop = Loop()")[0]}
with socket.create_server(("127.0.0.1", {PORT})) as listener:
    loop = Loop()
    listen(loop, listener, set())
    loop.run()
"""
SERVERS = {
    "tutorial-echo": TUTORIAL["echo_nonblocking.py"],
    "tutorial-chat": TUTORIAL["chat.py"],
    "main-loop": MAIN_LOOP_SERVER.replace("IDLE = 0.5", "IDLE = 60"),
}
every_server = pytest.mark.parametrize("name", SERVERS)


@contextlib.contextmanager
def serving(code: str, directory: Path, prelude: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server; the process and its port."""
    port = free_port()
    command = [sys.executable, "-W", "error", "-c", prelude + code.replace(PORT, str(port))]
    with started(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        yield server, port


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def answers(client: socket.socket, other: socket.socket) -> bool:
    """Whether a line of one client comes back to it (echo) or comes to the other (chat)."""
    client.sendall(b"hello\n")
    client.settimeout(20)
    other.settimeout(20)
    return b"hello" in other.recv(65536)


@pytest.mark.parametrize("name", ["tutorial-echo", "main-loop"])
def test_client_that_does_not_read_delays_no_other(name: str, tmp_path: Path) -> None:
    with serving(SERVERS[name], tmp_path) as (server, port), connect(port) as mute:
        mute.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):  # the server does not read any more
            while True:
                sent += mute.send(bytes(65536))
        assert sent > 65536
        with connect(port) as one:
            assert answers(one, one)
        assert server.poll() is None


def test_member_that_does_not_read_delays_no_other(tmp_path: Path) -> None:
    with serving(TUTORIAL["chat.py"], tmp_path) as (server, port), connect(port), connect(port) as two:
        with connect(port) as one:
            time.sleep(0.2)  # until all have joined
            two.settimeout(20)
            for _ in range(400):
                one.sendall((b"x" * 999 + b"\n") * 10)
                assert two.recv(65536)
        assert server.poll() is None


@every_server
def test_clients_that_reset_end_only_their_connections(name: str, tmp_path: Path) -> None:
    with serving(SERVERS[name], tmp_path) as (server, port), connect(port) as one, connect(port) as two:
        time.sleep(0.2)
        other = two if name == "tutorial-chat" else one
        assert answers(one, other)
        reset(connect(port))
        server.send_signal(signal.SIGSTOP)
        unaccepted, waiting = connect(port), connect(port)
        reset(unaccepted)
        waiting.sendall(b"hello\n")
        server.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        server.send_signal(signal.SIGSTOP)
        waiting.sendall(b"hello\n")
        reset(waiting)
        server.send_signal(signal.SIGCONT)
        assert answers(one, other)
        assert server.poll() is None


LIMIT = 40
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))\n"


@every_server
def test_server_without_a_free_fd_does_not_spin(name: str, tmp_path: Path) -> None:
    """It ends; the examples pause their listeners."""
    with contextlib.ExitStack() as clients, serving(SERVERS[name], tmp_path, LIMITED) as (server, port):
        with contextlib.suppress(ConnectionError):  # the server ends meanwhile
            for _ in range(LIMIT):
                clients.enter_context(connect(port))
        _, errors = server.communicate(timeout=30)
    assert re.search(r"^OSError: \[Errno 24\]", errors, re.MULTILINE)


def test_main_loop_closes_a_client_that_does_not_read(tmp_path: Path) -> None:
    with serving(MAIN_LOOP_SERVER, tmp_path) as (server, port), connect(port) as mute:
        mute.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                mute.send(bytes(65536))
        _, errors = server.communicate(timeout=30)
        assert (server.returncode, errors) == (0, "")


@pytest.mark.parametrize("mode", ["level", "edge", "oneshot"])
def test_watcher_stops_while_its_input_does_not_end(mode: str) -> None:
    command = [sys.executable, str(ROOT / "examples/watch_stdin.py"), "--mode", mode]
    with (
        started(["yes"], stdout=subprocess.PIPE) as source,
        started(command, stdin=source.stdout, stdout=subprocess.PIPE) as watcher,
    ):
        assert watcher.stdout is not None
        watcher.stdout.readline()
        watcher.send_signal(signal.SIGTERM)
        watcher.communicate(timeout=20)
        assert watcher.returncode == 0
