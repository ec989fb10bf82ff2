"""Draw docs/ps.svg: the output of `python -m pyepoll ps --watch` for a server with a stale registration.

python docs/ps_picture.py
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from pyepoll._cli import ps, screen

WIDTH = 124

SERVER = """
import os, select, socket

listener = socket.create_server(("127.0.0.1", 8000))
ep = select.epoll()
ep.register(listener, select.EPOLLIN)
print(flush=True)
conns = []
while True:
    for fd, events in ep.poll():
        if fd == listener.fileno():
            conn, _ = listener.accept()
            conns.append(conn)
            ep.register(conn, select.EPOLLIN | select.EPOLLRDHUP)
            continue
        try:
            data = os.read(fd, 5)
        except OSError:
            continue
        if data == b"leave":
            [conn] = [conn for conn in conns if conn.fileno() == fd]
            conns.append(conn.dup())
            conn.close()
"""

CLIENT = """
import socket, sys
conns = [socket.create_connection(("127.0.0.1", 8000)) for _ in range(3)]
conns[1].send(b"leave")
conns[1].send(b"data that is not read.")
print(flush=True)
sys.stdin.read()
"""


def start(name: str, program: str) -> subprocess.Popen[str]:
    path = Path("/tmp", name)
    path.write_text(program)
    process = subprocess.Popen(
        ["python", str(path)],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.readline()
    path.unlink()
    return process


def main() -> None:
    with start("server.py", SERVER) as server, start("client.py", CLIENT) as client:
        pages = ps.one(server.pid)
        next(pages)
        time.sleep(1)
        page = next(pages)
        server.kill()
        client.kill()
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="standard"
        )
        console.print(screen.drawn(page, WIDTH, fold=False))
    svg = console.export_svg(title=f"python -m pyepoll ps {server.pid} --watch")
    # No fonts from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    Path(__file__).with_name("ps.svg").write_text(svg)


main()
