"""Slow work in threads, sockets in one loop: the threads wake the loop when they have a result.

    $ python wake_from_thread.py --port 7000
    listening on 127.0.0.1:7000

Each line that a client sends is answered with its PBKDF2 digest, slow on purpose. Try it with
``nc 127.0.0.1 7000``. The end of the input (^D), SIGINT and SIGTERM stop the server. It shows:

- Only the loop touches sockets and connections, so nothing needs a lock. A thread puts its result in a
  queue and calls ``Waker.wake()``, which makes the waker's descriptor ready.
- The waker is registered with ET: each ``wake()`` is an edge, and it never has to be cleared.
- The mask is the state of a connection: IN for the next line, 0 while a thread works for it, OUT while its
  answer is being sent. HUP and ERR are always reported, so a client that disconnects is noticed.

``thread_pool.py`` is the same service with the threads waiting on the Epoll themselves.
"""

import argparse
import contextlib
import errno
import hashlib
import os
import queue
import signal
import socket
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TextIO

import pyepoll
from pyepoll import Event

MAX_LINE = 4096
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(eq=False, slots=True)
class Connection:
    sock: socket.socket
    inbox: bytes = b""
    """Lines without an answer; the last one may be incomplete."""
    outbox: bytes = b""
    """The rest of the answer."""


Source = Connection | socket.socket | TextIO | pyepoll.Waker | pyepoll.Signals


def digest(line: bytes, rounds: int) -> bytes:
    """Return the answer to a line; runs in a thread, with the GIL released for most of it."""
    return hashlib.pbkdf2_hmac("sha256", line, b"pyepoll", rounds).hex().encode() + b"\n"


class Server:
    """The loop. Everything except ``finished`` runs in one thread."""

    def __init__(
        self, listener: socket.socket, signals: pyepoll.Signals, pool: ThreadPoolExecutor, rounds: int
    ) -> None:
        self.listener = listener
        self.signals = signals
        self.pool = pool
        self.rounds = rounds
        self.results: queue.SimpleQueue[tuple[Connection, Future[bytes]]] = queue.SimpleQueue()
        self.connections: set[Connection] = set()
        self.ep: pyepoll.Epoll[Source] = pyepoll.Epoll()
        self.waker = pyepoll.Waker()

    def run(self) -> None:
        """Serve until stdin ends or a signal comes."""
        with self.ep as ep, self.waker:
            ep.register(self.signals, Event.IN, data=self.signals)
            ep.register(self.waker, Event.IN | Event.ET, data=self.waker)
            ep.register(self.listener, Event.IN, data=self.listener)
            if sys.stdin:
                # A regular file or /dev/null is always ready, and epoll refuses it.
                with contextlib.suppress(PermissionError):
                    ep.register(sys.stdin, Event.IN, data=sys.stdin)
            try:
                for source, events in ep:
                    if isinstance(source, Connection):
                        self.serve(source, events)
                    elif source is self.waker:
                        self.take_results()
                    elif source is self.listener:
                        self.accept()
                    elif source is self.signals:
                        self.signals.read()  # or close() would send them again
                        return
                    elif not os.read(0, 4096):
                        return
            finally:
                for conn in self.connections:
                    conn.sock.close()

    def accept(self) -> None:
        """Accept one connection; if there are more, the kernel reports the listener again."""
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has disconnected again
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            if self.connections:
                self.ep.modify(self.listener, 0)  # until a connection has ended
            else:
                time.sleep(0.1)  # other processes use all fds; no connection here has to wait
            return
        sock.setblocking(False)
        conn = Connection(sock)
        self.connections.add(conn)
        self.ep.register(sock, Event.IN, data=conn)

    def serve(self, conn: Connection, events: Event) -> None:
        """Continue a connection, or notice that it has ended."""
        try:
            if conn.outbox:
                conn.outbox = conn.outbox[conn.sock.send(conn.outbox) :]
                if not conn.outbox:
                    self.next_line(conn)
            elif events & Event.IN:
                data = conn.sock.recv(MAX_LINE)
                if not data or len(conn.inbox) > MAX_LINE:
                    self.hang_up(conn)  # the client has shut down its side, or its line is too long
                    return
                conn.inbox += data
                self.next_line(conn)
            else:
                self.hang_up(conn)  # HUP or ERR while a thread works for it: the client has left
        except BlockingIOError:
            return
        except OSError:
            self.hang_up(conn)

    def next_line(self, conn: Connection) -> None:
        """Pass the next line to a thread, or wait for it."""
        line, newline, rest = conn.inbox.partition(b"\n")
        if newline:
            conn.inbox = rest
            self.ep.modify(conn.sock, 0)  # one line at a time: no more is read meanwhile
            future = self.pool.submit(digest, line, self.rounds)
            future.add_done_callback(lambda future: self.finished(conn, future))
        else:
            self.ep.modify(conn.sock, Event.IN)

    def finished(self, conn: Connection, future: Future[bytes]) -> None:
        """Pass a result to the loop; runs in a thread, even after ``waker`` was closed."""
        self.results.put((conn, future))  # before wake(): the loop reads the queue when it wakes up
        self.waker.wake()

    def take_results(self) -> None:
        """Send all answers: several wake-ups can be one event."""
        with contextlib.suppress(queue.Empty):
            while True:
                conn, future = self.results.get_nowait()
                if conn in self.connections:
                    conn.outbox = future.result()
                    self.ep.modify(conn.sock, Event.OUT)

    def hang_up(self, conn: Connection) -> None:
        """Close a connection. This frees a file descriptor for the next one."""
        # First unregister: closing does not end a registration while a duplicate is open.
        self.ep.unregister(conn.sock)
        conn.sock.close()
        self.connections.discard(conn)
        self.ep.modify(self.listener, Event.IN)


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
    with listener, pyepoll.Signals(signal.SIGINT, signal.SIGTERM) as signals:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        with ThreadPoolExecutor(args.threads) as pool:
            Server(listener, signals, pool, args.rounds).run()
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
