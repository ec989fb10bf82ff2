"""An echo server: a listening socket, its connections and a pipe on stdin in one loop.

    $ python echo_server.py --port 7000
    listening on 127.0.0.1:7000

Talk to it with ``nc 127.0.0.1 7000``. A line ``quit`` or the end of the input (^D) stops it, and so do
SIGINT and SIGTERM. It shows:

- ``data=`` carries the connection itself through the kernel, so no table from fd to object is needed.
- Each connection waits for one event at a time: IN, or OUT while there is data to send back. The server does
  not read from a peer that does not read, so the peer costs at most one chunk of memory.
- If accept(2) fails because no file descriptor is left, the listener is paused until a connection has ended.
  Otherwise the level-triggered listener would be reported again immediately, indefinitely.
"""

import argparse
import contextlib
import errno
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass

import pyepoll
from pyepoll import Event

CHUNK = 65536
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(eq=False, slots=True)
class Connection:
    sock: socket.socket
    pending: bytes = b""
    """Received data that is not sent yet."""


@dataclass(eq=False, slots=True)
class Stdin:
    line: bytes = b""
    """An incomplete line."""


Source = Connection | socket.socket | Stdin | pyepoll.Signals


def accept(ep: pyepoll.Epoll[Source], listener: socket.socket, connections: set[Connection]) -> None:
    """Accept one connection; if there are more, the kernel reports the listener again."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return  # the client has disconnected again
    except OSError as error:
        if error.errno not in SHORTAGES:
            raise
        if connections:
            ep.modify(listener, 0)  # until a connection has ended
        else:
            time.sleep(0.1)  # other processes use all fds; no connection here has to wait
        return
    sock.setblocking(False)
    conn = Connection(sock)
    connections.add(conn)
    ep.register(sock, Event.IN, data=conn)


def echo(ep: pyepoll.Epoll[Source], conn: Connection) -> bool:
    """Receive if nothing is pending, then send as much as possible; False if the connection has ended."""
    sending = bool(conn.pending)
    try:
        if not sending:
            conn.pending = conn.sock.recv(CHUNK)
            if not conn.pending:
                return False  # the peer has shut down its side and received everything
        with contextlib.suppress(BlockingIOError):
            conn.pending = conn.pending[conn.sock.send(conn.pending) :]
    except BlockingIOError:
        return True
    except OSError:
        return False  # reset, timed out or unreachable
    if sending != bool(conn.pending):
        ep.modify(conn.sock, Event.OUT if conn.pending else Event.IN)
    return True


def quits(stdin: Stdin) -> bool:
    """Read stdin; return True at its end or at a line ``quit``."""
    # Not sys.stdin.readline(): it reads ahead, and epoll cannot see its buffer.
    data = os.read(0, 4096)
    *lines, rest = (stdin.line + data).split(b"\n")
    stdin.line = rest[:CHUNK]
    return not data or b"quit" in lines


def serve(listener: socket.socket, signals: pyepoll.Signals) -> None:
    """Echo until stdin ends, says ``quit``, or a signal comes."""
    connections: set[Connection] = set()
    with pyepoll.Epoll[Source]() as ep:
        ep.register(signals, Event.IN, data=signals)
        ep.register(listener, Event.IN, data=listener)
        if sys.stdin:
            # A regular file or /dev/null is always ready, and epoll refuses it.
            with contextlib.suppress(PermissionError):
                ep.register(sys.stdin, Event.IN, data=Stdin())
        try:
            for conn, _events in ep:
                if isinstance(conn, Connection):
                    if not echo(ep, conn):
                        # First unregister: closing does not end a registration while a duplicate is open.
                        ep.unregister(conn.sock)
                        conn.sock.close()
                        connections.discard(conn)
                        ep.modify(listener, Event.IN)  # a file descriptor is free again
                elif isinstance(conn, socket.socket):
                    accept(ep, conn, connections)
                elif isinstance(conn, Stdin):
                    if quits(conn):
                        return
                else:
                    conn.read()  # or close() would send the signals again
                    return
        finally:
            for conn in connections:
                conn.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo what each client sends.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    args = parser.parse_args()
    if not 0 <= args.port <= 65535:
        parser.error(f"argument --port: {args.port} is not between 0 and 65535")

    # create_server() sets SO_REUSEADDR: a restart need not wait for old connections to time out.
    try:
        listener = socket.create_server((args.host, args.port), backlog=1024)
    except OSError as error:  # the port is taken
        parser.error(str(error))
    with listener, pyepoll.Signals(signal.SIGINT, signal.SIGTERM) as signals:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        serve(listener, signals)


if __name__ == "__main__":
    main()
