"""Signals as events: a server that reloads on SIGHUP and stops on SIGTERM after its clients have left.

    $ echo hello >greeting.txt
    $ python signals.py --port 7000 greeting.txt
    listening on 127.0.0.1:7000

``nc 127.0.0.1 7000`` shows the text of the file, and stays connected until its input ends (^D).
``kill -HUP`` makes the server read the file again. SIGINT and SIGTERM stop it: it accepts no new connection,
shuts down its side of the others and ends with the last one. A second signal ends it immediately.
It shows:

- ``pyepoll.Signals``: as soon as a signal arrives, a handler in C remembers it and makes a file readable that
  is registered like any other. No signal is too early for the loop, and none is lost, however many arrive.
  A Python handler alone can miss one: handlers run before a wait goes to sleep, and when a signal
  interrupts the wait. If a signal arrives between these two moments, its handler runs only after something
  else ends the wait. (``wait(sigmask=...)`` is another solution: see sigprocmask(2), pselect(2).)
- Signals are handled in the loop, like any other event, and not between two arbitrary lines of code.
"""

import argparse
import contextlib
import errno
import signal
import socket
import time
from pathlib import Path

import pyepoll
from pyepoll import Event

CHUNK = 65536
MAX_GREETING = 4096
"""The buffer of a new connection always has room for this."""
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server:
    def __init__(
        self, listener: socket.socket, signals: pyepoll.Signals, path: Path, greeting: bytes
    ) -> None:
        self.listener = listener
        self.signals = signals
        self.path = path
        self.greeting = greeting[:MAX_GREETING]
        self.stopping = False
        self.clients: set[socket.socket] = set()
        self.ep: pyepoll.Epoll[socket.socket | pyepoll.Signals] = pyepoll.Epoll()

    def run(self) -> None:
        """Serve until signals say stop."""
        with self.ep as ep:
            ep.register(self.signals, Event.IN, data=self.signals)
            ep.register(self.listener, Event.IN, data=self.listener)
            try:
                for source, _events in ep:
                    if isinstance(source, pyepoll.Signals):
                        if self.handle(set(source.read())):
                            return
                    elif source is self.listener:
                        self.accept()
                    else:
                        self.discard(source)
                    if self.stopping and not self.clients:
                        return
            finally:
                for client in self.clients:
                    client.close()

    def handle(self, signums: set[int]) -> bool:
        """Handle signals; return True to end at once. The same signal twice may arrive as one."""
        if signal.SIGHUP in signums:
            self.reload()
        if signums <= {signal.SIGHUP}:
            return False
        if self.stopping:
            return True
        self.stopping = True
        self.ep.unregister(self.listener)
        self.listener.close()  # new connections are refused now
        for client in self.clients:
            with contextlib.suppress(OSError):  # it has disconnected, and its event will follow
                client.shutdown(socket.SHUT_WR)
        if self.clients:
            print(f"waiting for clients to leave: {len(self.clients)}; a second signal ends it", flush=True)
        return False

    def reload(self) -> None:
        """Read the greeting; keep the old one if that fails."""
        try:
            self.greeting = self.path.read_bytes()[:MAX_GREETING]
        except OSError as error:
            print(f"cannot reload: {error}", flush=True)

    def accept(self) -> None:
        """Accept one connection and greet it; if there are more, the kernel reports the listener again."""
        try:
            client, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has disconnected again
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            time.sleep(0.1)  # until a client has left; echo_server.py does not sleep here
            return
        client.setblocking(False)
        self.clients.add(client)
        self.ep.register(client, Event.IN, data=client)
        with contextlib.suppress(OSError):  # as above
            client.send(self.greeting)

    def discard(self, client: socket.socket) -> None:
        """Discard the data of a client; at its end, close the connection."""
        try:
            if client.recv(CHUNK):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # reset, timed out, unreachable
        # First unregister: closing does not end a registration while a duplicate is open.
        self.ep.unregister(client)
        client.close()
        self.clients.discard(client)


def main() -> None:
    parser = argparse.ArgumentParser(description="Greet each client; reload on SIGHUP, stop on SIGTERM.")
    parser.add_argument("greeting", type=Path, help="the file whose text each client is sent")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    args = parser.parse_args()
    if not 0 <= args.port <= 65535:
        parser.error(f"argument --port: {args.port} is not between 0 and 65535")

    try:
        greeting = args.greeting.read_bytes()
        # create_server() sets SO_REUSEADDR: a restart need not wait for old connections to time out.
        listener = socket.create_server((args.host, args.port), backlog=1024)
    except OSError as error:  # no such file, or the port is taken
        parser.error(str(error))
    with listener, pyepoll.Signals(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        Server(listener, signals, args.greeting, greeting).run()


if __name__ == "__main__":
    main()
