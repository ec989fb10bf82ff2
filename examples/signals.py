"""Signals as events: a server that SIGHUP reloads and SIGTERM ends when its clients have gone.

    $ echo hello >greeting.txt
    $ python signals.py --port 7000 greeting.txt
    listening on 127.0.0.1:7000

``nc 127.0.0.1 7000`` is greeted with the text of the file, and stays connected until it ends its input (^D).
``kill -HUP`` makes the server read the file anew. SIGINT and SIGTERM stop it: it accepts nobody any more,
shuts down its side of the connections and ends with the last of them; a second signal ends it at once.
What it shows:

- ``signal.set_wakeup_fd``: as soon as a signal comes, CPython writes its number to a socket, and the other
  end of it is registered like any other. The level stays until it is read, so no signal can come too early.
  With a handler in Python alone it can: handlers run before a wait goes to sleep and when a signal
  interrupts it, and between the two is a moment at which the signal is noticed, but not acted upon until
  something else ends the wait. (``wait(sigmask=...)`` is the other cure: see sigprocmask(2), pselect(2).)
- What is to be done happens in the loop, as for any other event, and not between two lines of something
  else. Each signal needs a handler all the same, or it would do what it does by default.
"""

import argparse
import contextlib
import errno
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pyepoll
from pyepoll import Event

CHUNK = 65536
MAX_GREETING = 4096
"""So much the buffer of a new connection takes at once."""
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@contextlib.contextmanager
def signals_as_bytes(*signums: int) -> Iterator[socket.socket]:
    """Yield a socket that receives a byte, the signal's number, for each signal that comes."""
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        # When nobody reads, the buffer fills up: what is in it says enough.
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        handlers = {signum: signal.signal(signum, lambda *_: None) for signum in signums}
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(-1)
            for signum, handler in handlers.items():
                signal.signal(signum, handler)


class Server:
    def __init__(self, listener: socket.socket, signals: socket.socket, path: Path, greeting: bytes) -> None:
        self.listener = listener
        self.signals = signals
        self.path = path
        self.greeting = greeting[:MAX_GREETING]
        self.stopping = False
        self.clients: set[socket.socket] = set()
        self.ep: pyepoll.Epoll[socket.socket] = pyepoll.Epoll()

    def run(self) -> None:
        """Serve until signals say stop."""
        with self.ep as ep:
            ep.register(self.signals, Event.IN, data=self.signals)
            ep.register(self.listener, Event.IN, data=self.listener)
            try:
                for sock, _events in ep:
                    if sock is self.signals:
                        if self.handle(set(self.signals.recv(CHUNK))):
                            return
                    elif sock is self.listener:
                        self.accept()
                    else:
                        self.discard(sock)
                    if self.stopping and not self.clients:
                        return
            finally:
                for client in self.clients:
                    client.close()

    def handle(self, signums: set[int]) -> bool:
        """Do what signals ask for; return True to end at once. The same signal twice may come as one."""
        if signal.SIGHUP in signums:
            self.reload()
        if signums <= {signal.SIGHUP}:
            return False
        if self.stopping:
            return True
        self.stopping = True
        self.ep.unregister(self.listener)
        self.listener.close()  # who connects now is refused
        for client in self.clients:
            with contextlib.suppress(OSError):  # it has gone, and its event is on the way
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
            return  # the client has gone again
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            time.sleep(0.1)  # until a client has gone: see echo_server.py for a way that does not sleep
            return
        client.setblocking(False)
        self.clients.add(client)
        self.ep.register(client, Event.IN, data=client)
        with contextlib.suppress(OSError):  # as above
            client.send(self.greeting)

    def discard(self, client: socket.socket) -> None:
        """Throw away what a client sends; at its end, let it go."""
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
    with listener, signals_as_bytes(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)
        Server(listener, signals, args.greeting, greeting).run()


if __name__ == "__main__":
    main()
