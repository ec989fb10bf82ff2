"""Every Python block of README.md and docs/ runs as it stands; the set-up commands have their shape."""

import doctest
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PORT = "8000"
"""The port that every server on a page listens on; the test gives it a free one."""


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language on a page, as (line number, text)."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start(1)) + 1, match[1])
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


PYTHON = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{line}")
    for page in PAGES
    for line, code in blocks(page, "python")
]


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def serve(code: str, cwd: Path) -> str:
    """Run a server, expect an echo of two messages from each of two clients, interrupt it; its stderr."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code.replace(PORT, str(port))],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            with connect(port) as a, connect(port) as b:
                for message in (b"one", b"two"):
                    for client in (a, b):
                        client.sendall(message)
                        assert client.recv(100) == message
                a.shutdown(socket.SHUT_WR)
                assert a.recv(100) == b"", "the server did not close a connection that had ended"
        finally:
            server.send_signal(signal.SIGINT)
            _, stderr = server.communicate(timeout=20)
    return stderr


@pytest.mark.parametrize("code", PYTHON)
def test_python_block_runs(code: str, tmp_path: Path) -> None:
    if ">>>" in code:
        name = "the block"
        examples = doctest.DocTestParser().get_doctest(code, {}, name, None, None)
        assert doctest.DocTestRunner().run(examples).failed == 0
    elif PORT in code:
        assert "KeyboardInterrupt" in serve(code, tmp_path)
    else:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr


def setup_commands() -> list[str]:
    """The lines of README.md that make a virtual environment."""
    lines = "".join(text for _, text in blocks(ROOT / "README.md", "sh")).splitlines()
    return [line for line in lines if ".ci/venv" in line]


def test_readme_has_a_server_block() -> None:
    servers = [code for _, code in blocks(ROOT / "README.md", "python") if PORT in code]
    assert len(servers) == 1
    assert len([line for line in servers[0].splitlines() if line]) <= 15


def test_the_two_commands_set_up_everything() -> None:
    """Each is one line, makes its own environment, and installs into that one alone."""
    main, test = setup_commands()
    for command, venv in ((main, ".venv"), (test, ".venv-test")):
        first, install, *_ = command.split(" && ")
        assert shlex.split(first) == [".ci/venv", venv]
        assert shlex.split(install)[:2] == [f"{venv}/bin/pip", "install"]
        assert "." in shlex.split(install), "it must install this tree, not a stranger's package"
        assert not set(re.findall(r"\.venv[-\w]*", command)) - {venv}
    script = re.search(r"examples/\w+\.py", main)
    assert script, "the main job is a program of examples/"
    assert (ROOT / script[0]).is_file()
    assert test.endswith(" && .venv-test/bin/pytest")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_on_the_page_exists(page: Path) -> None:
    text = page.read_text()
    linked = [page.parent / path for path in re.findall(r"\]\(([\w./-]+)\)", text)]
    named = [ROOT / path for path in re.findall(r"(?:examples|docs|\.ci)/[\w.-]+\w", text)]
    tests = [ROOT / "tests" / name for name in re.findall(r"\btest_\w+\.py", text)]
    missing = sorted(str(path) for path in {*linked, *named, *tests} if not path.exists())
    assert not missing


def test_nothing_sends_the_reader_to_a_strangers_package() -> None:
    for page in PAGES:
        assert not re.search(r"install\s+(-\S+\s+)*pyepoll\b", page.read_text()), page
