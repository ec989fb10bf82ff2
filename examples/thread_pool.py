"""A pool of threads on one Epoll: each thread takes the next ready event of any connection.

    $ python thread_pool.py --port 7000
    listening on 127.0.0.1:7000

Each line that a client sends is answered with its PBKDF2 digest, slow on purpose. Try it with
``nc 127.0.0.1 7000``. The end of the input (^D), SIGINT and SIGTERM stop the server. It shows:

- ONESHOT gives a connection to one thread at a time: after its event it is disarmed, and the thread that
  got the event owns it until ``rearm`` (or ``modify``, to wait for another event). So connections need
  no lock.
- ``wait(maxevents=1)``: a thread that took a whole batch would keep the other threads from its events.
- Every thread sees a level-triggered Waker that is never cleared: it stops all of them.
- Every thread also sees the signals, which are read when all threads have ended. A Python handler would have
  to wait until the main thread can run it; see ``signals.py``.
- If accept(2) fails because no file descriptor is left, the listener stays disarmed until a connection has
  ended.

``wake_from_thread.py`` is the same service with one loop, and threads for the slow work only.
"""

import argparse
import contextlib
import errno
import hashlib
import os
import signal
import socket
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TextIO

import pyepoll
from pyepoll import Event

MAX_LINE = 4096
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(eq=False, slots=True)
class Connection:
    sock: socket.socket
    mask: int
    """Its event mask."""
    inbox: bytes = b""
    """Lines without an answer; the last one may be incomplete."""
    outbox: bytes = b""
    """The rest of the answer."""


Source = Connection | socket.socket | TextIO | pyepoll.Waker


def digest(line: bytes, rounds: int) -> bytes:
    """Return the answer to a line."""
    return hashlib.pbkdf2_hmac("sha256", line, b"pyepoll", rounds).hex().encode() + b"\n"


class Server:
    """The shared state of the threads. All of them can use the Epoll and the set at once."""

    def __init__(
        self, listener: socket.socket, signals: pyepoll.Signals, stop: pyepoll.Waker, rounds: int
    ) -> None:
        self.listener = listener
        self.signals = signals
        self.stop = stop
        self.rounds = rounds
        self.connections: set[Connection] = set()
        self.ep: pyepoll.Epoll[Source] = pyepoll.Epoll()

    def run(self, threads: int) -> None:
        """Serve until stdin ends or a signal comes."""
        with self.ep as ep, ThreadPoolExecutor(threads) as pool:
            ep.register(self.stop, Event.IN, data=self.stop)
            ep.register(self.signals, Event.IN, data=self.stop)
            ep.register(self.listener, Event.IN | Event.ONESHOT, data=self.listener)
            if sys.stdin:
                # A regular file or /dev/null is always ready, and epoll refuses it.
                with contextlib.suppress(PermissionError):
                    ep.register(sys.stdin, Event.IN | Event.ONESHOT, data=sys.stdin)
            workers = [pool.submit(self.work) for _ in range(threads)]
            try:
                wait(workers, return_when=FIRST_EXCEPTION)
            finally:
                self.stop.wake()  # if one thread has failed, the others end too
                wait(workers)
                self.signals.read()  # or close() would send them again
                for conn in self.connections:
                    conn.sock.close()
            for worker in workers:
                worker.result()  # the exception of the one that failed

    def work(self) -> None:
        """Handle one event after another; runs in each thread."""
        while True:
            for source, _events in self.ep.wait(maxevents=1):
                if isinstance(source, Connection):
                    self.serve(source)
                elif source is self.listener:
                    self.accept()
                elif source is self.stop:
                    return
                elif os.read(0, 4096):
                    self.ep.rearm(sys.stdin)
                else:
                    self.stop.wake()

    def accept(self) -> None:
        """Accept one connection, and arm the listener for the next."""
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            self.ep.rearm(self.listener)  # the client has disconnected again
            return
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            # hang_up() arms the listener after close(), so there is no race.
            if not self.connections:
                time.sleep(0.1)  # other processes use all fds; no connection here has to wait
                self.ep.rearm(self.listener)
            return
        self.ep.rearm(self.listener)
        sock.setblocking(False)
        conn = Connection(sock, Event.IN | Event.ONESHOT)
        self.connections.add(conn)
        self.ep.register(sock, conn.mask, data=conn)  # last: now another thread can have it

    def serve(self, conn: Connection) -> None:
        """Receive, answer one line, send as much as possible, and arm the connection again."""
        try:
            if not conn.outbox:
                if b"\n" not in conn.inbox:
                    data = conn.sock.recv(MAX_LINE)
                    if not data or len(conn.inbox) > MAX_LINE:
                        self.hang_up(conn)  # the client has shut down its side, or its line is too long
                        return
                    conn.inbox += data
                line, newline, rest = conn.inbox.partition(b"\n")
                if newline:
                    conn.inbox = rest
                    conn.outbox = digest(line, self.rounds)
            if conn.outbox:
                conn.outbox = conn.outbox[conn.sock.send(conn.outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up(conn)  # reset, timed out or unreachable
            return
        # With more lines it waits for OUT, which is ready at once; other connections come first.
        mask = (Event.OUT if conn.outbox or b"\n" in conn.inbox else Event.IN) | Event.ONESHOT
        if mask == conn.mask:
            self.ep.rearm(conn.sock)
        else:
            conn.mask = mask
            self.ep.modify(conn.sock, mask)

    def hang_up(self, conn: Connection) -> None:
        """Close a connection. This frees a file descriptor for the next one."""
        # First unregister: closing does not end a registration while a duplicate is open.
        self.ep.unregister(conn.sock)
        conn.sock.close()
        self.connections.discard(conn)
        self.ep.rearm(self.listener)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer each line with its PBKDF2 digest.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100_000, help="how slow a digest is")
    args = parser.parse_args()
    if not 0 <= args.port <= 65535:
        parser.error(f"argument --port: {args.port} is not between 0 and 65535")

    # create_server() sets SO_REUSEADDR: a restart need not wait for old connections to time out.
    try:
        listener = socket.create_server((args.host, args.port), backlog=1024)
    except OSError as error:  # the port is taken
        parser.error(str(error))
    stopping = (signal.SIGINT, signal.SIGTERM)
    with listener, pyepoll.Signals(*stopping) as signals, pyepoll.Waker() as stop:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        Server(listener, signals, stop, args.rounds).run(args.threads)


if __name__ == "__main__":
    main()
