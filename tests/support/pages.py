"""README.md and the pages of docs/: their blocks of code, and how each kind is run.

A block is ``python``, ``sh`` or ``console``; ``text`` and MyST's directives are not code. A comment before
may say more: ``<!-- needs Python 3.13 -->``, ``<!-- needs NAME -->`` of a package that may be missing,
``<!-- not run: why -->`` (not of Python), ``<!-- run by tests/PATH -->``, and ``<!-- typed: 1 3 -->``, the
lines of a terminal's block that are typed.

A Python block whose first line is ``# name.py`` is a program that the console blocks of its page run. Those
are one session: the lines after a ``$ command`` are its output; a server stays until the next one or the end
of the page; terminals with ``$ nc`` in blocks one after the other are open at the same time, and ``$ curl``
gets one answer of the server's.
"""

import contextlib
import http.client
import importlib.util
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.guard import started

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PORT = "8000"
"""The port that every server on a page listens on; a test gives it a free one."""
PATIENCE = 50
CANCELLED = (
    r"asyncio\.exceptions\.CancelledError\n\n"
    r"During handling of the above exception, another exception occurred:\n\n"
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    note: str
    """The comment before it."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def program(self) -> str | None:
        """The name of the file that a Python block is."""
        name = re.match(r"# (\w+\.py)\n", self.text)
        return name[1] if name and self.language == "python" else None

    @property
    def excused(self) -> bool:
        return bool(re.fullmatch(r"not run: \S.*", self.note)) and self.language != "python"

    @property
    def run_by(self) -> Path | None:
        """The test file that runs the block, if test_pages.py does not."""
        path = re.fullmatch(r"run by (tests/[\w/]+\.py)", self.note)
        return ROOT / path[1] if path else None

    @property
    def missing(self) -> str | None:
        """The package that the block needs and that is not installed."""
        package = re.fullmatch(r"needs ([a-z]\w*)", self.note)
        return package[1] if package and importlib.util.find_spec(package[1]) is None else None


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, each of which begins at the margin."""
    found = []
    lines = page.read_text().splitlines()
    numbers = iter(range(len(lines)))
    for i in numbers:
        fence = re.fullmatch(r"(\s*)(`{3,}|~{3,}|:{3,})(.*)", lines[i])
        if not fence:
            continue
        assert not fence[1], f"{page}:{i + 1}: a block within another element is not run"
        end = lines.index(fence[2], i + 1)
        before = next((line for line in reversed(lines[:i]) if line), "")
        note = re.fullmatch(r"<!-- (.*) -->", before)
        text = "".join(f"{line}\n" for line in lines[i + 1 : end])
        found.append(Block(page, i + 2, fence[3], text, note[1] if note else ""))
        next(itertools.islice(numbers, end - i - 1, None), None)
    return found


def anchor_of(heading: str) -> str:
    """The anchor that forges and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def get(port: int, path: str) -> str:
    """One answer of a server that may still be starting."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.sock = connect(port)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text


def run_alone(code: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def serve_echo(code: str, cwd: Path) -> None:
    """Run a server, expect an echo of two messages from each of two clients, interrupt it."""
    port = free_port()
    with started(
        [sys.executable, "-W", "error", "-c", code.replace(PORT, str(port))],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        with connect(port) as a, connect(port) as b:
            for message in (b"one", b"two"):
                for client in (a, b):
                    client.sendall(message)
                    assert client.recv(100) == message
            a.shutdown(socket.SHUT_WR)
            assert a.recv(100) == b"", "the server did not close a connection that had ended"
            # It ends although a client is connected.
            server.send_signal(signal.SIGINT)
            _, stderr = server.communicate(timeout=20)
    assert "KeyboardInterrupt" in stderr


# A session: the console blocks of a page.


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that it is to print."""
    assert block.text.startswith("$ "), f"{block}: a console block begins with a command"
    for command in block.text.removeprefix("$ ").split("\n$ "):
        first, *rest = command.splitlines()
        yield first, rest


class Session:
    """A shell in a directory that has the page's programs and the examples in it."""

    def __init__(self, blocks: list[Block], directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.server: subprocess.Popen[str] | None = None
        self.servers = contextlib.ExitStack()
        self.programs = {block.program: block.text for block in blocks if block.program}
        for name, code in self.programs.items():
            (directory / str(name)).write_text(self.here(code))
        (directory / "examples").symlink_to(ROOT / "examples")
        tools = directory / ".tools"
        tools.mkdir()
        python = tools / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -W error -W ignore::ResourceWarning "$@"\n')
        python.chmod(0o755)
        # Programs that a page needs, as uvicorn, are beside the interpreter.
        path = f"{tools}:{Path(sys.executable).parent}:/usr/bin:/bin"
        self.environment = {
            "PATH": path,
            "HOME": str(directory),  # gunicorn makes a directory there
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
        }

    def here(self, text: str) -> str:
        return text.replace(PORT, str(self.port))

    def run(self, blocks: list[Block]) -> None:
        with self.servers:
            for talking, group in itertools.groupby(blocks, lambda block: block.text.startswith("$ nc ")):
                if talking:
                    self.talk(list(group))
                    continue
                for block in group:
                    for command, output in commands(block):
                        self.obey(command, "".join(f"{self.here(line)}\n" for line in output))
            self.end_server()

    def obey(self, command: str, output: str) -> None:
        if address := re.fullmatch(rf"curl http://127\.0\.0\.1:{PORT}(/\S*)", command):
            answer = get(self.port, address[1])
            assert answer == output, answer
            return
        if any(PORT in text for text in (command, *map(self.programs.get, command.split())) if text):
            self.end_server()
            # The assignments before a command are not exec's to make.
            self.server = self.servers.enter_context(self.start(f"exec env {self.here(command)}"))
            assert self.server.stdout
            for line in output.splitlines(keepends=True):
                assert self.server.stdout.readline() == line
            return
        assert self.finish(command)[1] == output, command

    def finish(self, command: str) -> tuple[int, str]:
        """Run a command to its end; its status, and its output."""
        with self.start(self.here(command)) as child:
            printed, _ = child.communicate(timeout=PATIENCE)
        return child.returncode, printed

    def start(self, command: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        return started(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end_server(self) -> None:
        """Interrupt it as ^C does: it ends by that, or of itself, and has nothing else to complain of."""
        if self.server is None:
            return
        os.killpg(self.server.pid, signal.SIGINT)
        try:
            printed, _ = self.server.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.server.pid, signal.SIGKILL)
            raise
        # asyncio makes KeyboardInterrupt of the end of its main task, and Python shows both.
        printed = re.sub(rf"{CANCELLED}Traceback", "", printed)
        assert printed.count("Traceback") == printed.endswith("\nKeyboardInterrupt\n"), printed
        self.server = None

    def talk(self, blocks: list[Block]) -> None:
        """Type and read the text of the terminals, each in its order, each line as soon as it can be."""
        with contextlib.ExitStack() as stack:
            terminals = {}
            for block in blocks:
                terminal = Terminal(block)
                terminals[stack.enter_context(connect(self.port))] = terminal
            while any(terminal.script for terminal in terminals.values()):
                for sock, terminal in terminals.items():
                    terminal.type(sock)
                waiting = [sock for sock, terminal in terminals.items() if terminal.script]
                ready, _, _ = select.select(waiting, [], [], 20)
                assert ready or not waiting, [terminal.script for terminal in terminals.values()]
                for sock in ready:
                    terminals[sock].read(sock)
            assert not any(terminal.buffer for terminal in terminals.values())


class Terminal:
    """A console block in which nc runs: its lines are typed, or are replies of the server."""

    def __init__(self, block: Block) -> None:
        ((command, lines),) = commands(block)
        assert command == f"nc 127.0.0.1 {PORT}", block
        typed = {int(number) for number in re.findall(r"\d+", block.note)}
        assert typed <= set(range(1, len(lines) + 1)), block
        self.script = [(f"{line}\n".encode(), number in typed) for number, line in enumerate(lines, 1)]
        self.buffer = b""

    def type(self, sock: socket.socket) -> None:
        while self.script and self.script[0][1]:
            sock.sendall(self.script.pop(0)[0])

    def read(self, sock: socket.socket) -> None:
        data = sock.recv(65536)
        assert data, f"closed, but it should say {self.script}"
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.type(sock)
            assert self.script, f"it also says {line!r}"
            assert line + b"\n" == self.script.pop(0)[0]
