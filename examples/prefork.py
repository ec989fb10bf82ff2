"""Worker processes on one listening socket, each with its own Epoll: an echo server for all cores.

    $ python prefork.py --port 7000 --workers 4
    listening on 127.0.0.1:7000

``nc 127.0.0.1 7000`` shows the worker that serves it. The end of the input (^D), SIGINT and SIGTERM stop the
server. It shows:

- EXCLUSIVE: a new connection wakes one worker (or a few), not all of them. The kernel wakes a worker that is
  waiting and skips busy ones; it does not balance the load.
- EXCLUSIVE cannot be modified, so a worker without free file descriptors unregisters the listener, and the
  others continue. It registers the listener again when one of its connections has ended.
- The parent watches its workers through ``Child`` (Linux 5.3): a killed worker is replaced.
- All workers watch the read end of a pipe; only the parent has the write end. The pipe reports HUP when the
  parent closes it or dies for any reason, so no worker is left running.
"""

import argparse
import contextlib
import errno
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TextIO

import pyepoll
from pyepoll import Event

CHUNK = 65536
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(eq=False, slots=True)
class Connection:
    sock: socket.socket
    pending: bytes
    """Data that is not sent yet."""


# A worker: the int is the parent's pipe.
WorkerEpoll = pyepoll.Epoll[Connection | socket.socket | int]


def accept(ep: WorkerEpoll, listener: socket.socket, connections: set[Connection]) -> None:
    """Accept one connection and leave the next to a free worker."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return  # another worker was faster, or the client has disconnected
    except OSError as error:
        if error.errno not in SHORTAGES:
            raise
        if connections:
            ep.unregister(listener)  # until one of them has ended
        else:
            time.sleep(0.1)  # other processes use all fds; no connection here has to wait
        return
    sock.setblocking(False)
    conn = Connection(sock, b"worker %d\n" % os.getpid())
    connections.add(conn)
    ep.register(sock, Event.OUT, data=conn)


def echo(ep: WorkerEpoll, conn: Connection) -> bool:
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


def work(listener: socket.socket, lifeline: int) -> None:
    """Serve until the parent closes its end of ``lifeline``."""
    connections: set[Connection] = set()
    with WorkerEpoll() as ep:
        ep.register(lifeline, 0, data=lifeline)  # HUP is always reported
        ep.register(listener, Event.IN | Event.EXCLUSIVE, data=listener)
        try:
            for source, _events in ep:
                if isinstance(source, Connection):
                    if not echo(ep, source):
                        # First unregister: closing does not end a registration while a duplicate is open.
                        ep.unregister(source.sock)
                        source.sock.close()
                        connections.discard(source)
                        if listener not in ep:
                            ep.register(listener, Event.IN | Event.EXCLUSIVE, data=listener)
                elif isinstance(source, socket.socket):
                    accept(ep, source, connections)
                else:
                    return
        finally:
            for conn in connections:
                conn.sock.close()


def start_worker(
    listener: socket.socket, signals: pyepoll.Signals, lifeline: tuple[int, int]
) -> pyepoll.Child:
    """Fork a worker."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pyepoll.Child(pid)
    status = 1
    try:
        signals.close()  # SIGTERM ends a worker, which has a copy of the parent's object
        # ^C goes to all processes of the terminal: the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(lifeline[1])
        work(listener, lifeline[0])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # not back into the parent's code


def supervise(listener: socket.socket, signals: pyepoll.Signals, workers: int) -> None:
    """Keep the workers running until stdin ends or a signal comes."""
    lifeline = os.pipe()
    children: set[pyepoll.Child] = set()
    with pyepoll.Epoll[pyepoll.Child | pyepoll.Signals | TextIO]() as ep:
        ep.register(signals, Event.IN, data=signals)
        if sys.stdin:
            # A regular file or /dev/null is always ready, and epoll refuses it.
            with contextlib.suppress(PermissionError):
                ep.register(sys.stdin, Event.IN, data=sys.stdin)
        try:
            while True:
                while len(children) < workers:
                    child = start_worker(listener, signals, lifeline)
                    children.add(child)
                    ep.register(child, Event.IN, data=child)  # ready when the worker has ended
                for source, _events in ep.wait():
                    if isinstance(source, pyepoll.Child):
                        source.read()
                        ep.unregister(source)
                        source.close()
                        children.discard(source)
                        if source.returncode is not None and source.returncode > 0:
                            sys.exit("a worker has failed")  # and a new one would fail too
                    elif source is signals:
                        signals.read()  # or close() would send them again
                        return
                    elif not os.read(0, 4096):
                        return
        finally:
            os.close(lifeline[1])
            for child in children:
                os.waitpid(child.pid, 0)
                child.close()
            os.close(lifeline[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo what each client sends, with several processes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
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
        supervise(listener, signals, args.workers)


if __name__ == "__main__":
    main()
