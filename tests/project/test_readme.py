"""The set-up commands have their shape, and the servers survive a reset; test_pages.py runs the rest."""

import contextlib
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pages import PORT, ROOT, Block, blocks_of, connect, free_port


def blocks(language: str) -> list[str]:
    return [block.text for block in blocks_of(ROOT / "README.md") if block.language == language]


def setup_commands() -> list[str]:
    """The lines of README.md that make a virtual environment."""
    lines = "".join(blocks("sh")).splitlines()
    return [line for line in lines if "tools/venv" in line]


SERVERS = [
    block
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md")
    for block in blocks_of(page)
    if block.language == "python" and PORT in block.text
]


def test_readme_has_a_server_of_fifteen_lines_and_one_for_asyncio() -> None:
    server, aio = (block.text for block in SERVERS if block.page == ROOT / "README.md")
    assert len([line for line in server.splitlines() if line]) <= 15
    assert "pyepoll.aio.run" in aio


# Where the tests run in the background of a script, SIGINT is ignored, and a child inherits that.
HEED_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def reset(client: socket.socket) -> None:
    """Close it so that the peer gets RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def echoes(client: socket.socket) -> bool:
    client.sendall(b"hello")
    return client.recv(100) == b"hello"


def reset_when_idle(server: subprocess.Popen[str], port: int) -> None:
    client = connect(port)
    assert echoes(client)
    reset(client)


def reset_before_accept(server: subprocess.Popen[str], port: int) -> None:
    server.send_signal(signal.SIGSTOP)
    reset(connect(port))
    server.send_signal(signal.SIGCONT)


def reset_before_recv(server: subprocess.Popen[str], port: int) -> None:
    client = connect(port)
    assert echoes(client)
    server.send_signal(signal.SIGSTOP)
    client.sendall(b"hello")
    reset(client)
    server.send_signal(signal.SIGCONT)


def reset_during_send(server: subprocess.Popen[str], port: int) -> None:
    """The server waits for room, as the client does not read the replies."""
    client = connect(port)
    client.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            client.sendall(bytes(65536))
    reset(client)


@pytest.mark.parametrize(
    "attack",
    [reset_when_idle, reset_before_accept, reset_before_recv, reset_during_send],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("block", SERVERS, ids=str)
def test_server_survives_a_reset(
    block: Block, attack: Callable[[subprocess.Popen[str], int], None], tmp_path: Path
) -> None:
    """As printed: the other connections, and new ones, are served as before."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEED_SIGINT + block.text.replace(PORT, str(port))],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            with connect(port) as other:
                assert echoes(other)
                for _ in range(3):
                    attack(server, port)
                    assert echoes(other)
                with connect(port) as client:
                    assert echoes(client)
            time.sleep(0.1)  # for later output of the server
        finally:
            server.send_signal(signal.SIGCONT)
            server.send_signal(signal.SIGINT)
            try:
                _, stderr = server.communicate(timeout=20)
            finally:
                server.kill()
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert not re.search("reset|pipe|exception in|never retrieved", stderr, re.IGNORECASE), stderr


def test_the_two_commands_set_up_everything() -> None:
    """Each is one line, makes its own environment, and installs into that one alone."""
    main, test = setup_commands()
    for command, venv in ((main, ".venv"), (test, ".venv-test")):
        first, install, *_ = command.split(" && ")
        assert shlex.split(first) == ["tools/venv", venv]
        assert shlex.split(install)[:2] == [f"{venv}/bin/pip", "install"]
        assert " -q " in install
        assert install.endswith(" -e ."), (
            "the checkout itself, built in place, and not the package of an index"
        )
        assert not set(re.findall(r"\.venv[-\w]*", command)) - {venv}
    script = re.search(r"examples/\w+\.py", main)
    assert script, "the main job is a program of examples/"
    assert (ROOT / script[0]).is_file()
    assert test.endswith(" && .venv-test/bin/pytest")


def figures(page: str) -> str:
    """The part of a page that python -m benchmarks.update_docs writes."""
    _, _, rest = (ROOT / page).read_text().partition("<!-- benchmarks: begin -->")
    part, end, _ = rest.partition("<!-- benchmarks: end -->")
    assert end
    return part


def test_performance_page_has_every_figure_of_the_readme() -> None:
    numbers = set(re.findall(r"\d[\d,]*(?:\.\d+)?", figures("README.md")))
    assert len(numbers) > 10
    assert numbers <= set(re.findall(r"\d[\d,]*(?:\.\d+)?", figures("docs/performance.md")))
