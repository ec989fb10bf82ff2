"""A chat server: each line from one client goes to all others, and no client blocks another.

    $ python chat_server.py --port 7000
    listening on 127.0.0.1:7000

Join with ``nc 127.0.0.1 7000`` from several terminals. The end of the input (^D), SIGINT and SIGTERM stop
the server. It shows:

- ``data=`` carries the function to call, so the loop is ``for handle, events in ep: handle(events)``.
- Each client has a buffer of outgoing data. OUT is registered only while the buffer is not empty: a socket
  is almost always writable, and would be reported on every turn of the loop.
- Back-pressure: the server stops reading from a client that does not read, and drops it if its buffer
  exceeds ``--limit``. A slow reader costs a bounded amount of memory and delays no other client.
- A client can be dropped while its own event is next in the batch: after ``unregister`` the loop skips
  the event.
"""

import argparse
import contextlib
import errno
import functools
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pyepoll
from pyepoll import Event

CHUNK = 65536
MAX_LINE = 65536
PAUSE = 65536
"""If a client has more than this to receive, the server does not read from it."""
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Handler = Callable[[Event], None]


@dataclass(eq=False, slots=True)
class Client:
    sock: socket.socket
    name: bytes
    inbox: bytes = b""
    """An incomplete line from the client."""
    outbox: bytearray = field(default_factory=bytearray)
    """Data that is not sent to it yet."""
    mask: int = Event.IN
    ended: bool = False
    """It has shut down its side, and leaves after it has received its pending data."""


class Room:
    """The clients and their messages."""

    def __init__(self, ep: pyepoll.Epoll[Handler], listener: socket.socket, limit: int) -> None:
        self.ep = ep
        self.listener = listener
        self.limit = limit
        self.clients: set[Client] = set()
        self.numbers = itertools.count(1)

    def accept(self, _events: Event) -> None:
        """Accept one client; if there are more, the kernel reports the listener again."""
        try:
            sock, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has disconnected again
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            if self.clients:
                self.ep.modify(self.listener, 0)  # until a client has left
            else:
                time.sleep(0.1)  # other processes use all fds; no connection here has to wait
            return
        sock.setblocking(False)
        client = Client(sock, b"guest%d" % next(self.numbers))
        self.clients.add(client)
        self.ep.register(sock, Event.IN, data=functools.partial(self.serve, client))

    def serve(self, client: Client, events: Event) -> None:
        """Send and receive as much as possible now."""
        if events.writable:
            self.flush(client)
        if events.readable and client in self.clients and not client.ended:
            self.receive(client)

    def receive(self, client: Client) -> None:
        """Receive once, and pass whole lines on."""
        try:
            data = client.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.drop(client, error.strerror)
            return
        *lines, client.inbox = (client.inbox + data).split(b"\n")
        if not data:
            client.ended = True
            if client.inbox:
                lines.append(client.inbox)  # the rest before the end counts as a line
        elif len(client.inbox) > MAX_LINE:
            self.drop(client, "its line is too long")
            return
        if lines:
            message = b"".join(b"%b: %b\n" % (client.name, line) for line in lines)
            for other in self.clients - {client}:
                if not other.ended:
                    other.outbox += message
                    self.flush(other)
        self.watch(client)

    def flush(self, client: Client) -> None:
        """Send as much as possible, and drop the client if too much is left."""
        try:
            if client.outbox:
                del client.outbox[: client.sock.send(client.outbox)]
        except BlockingIOError:
            pass
        except OSError as error:
            self.drop(client, error.strerror)
            return
        if len(client.outbox) > self.limit:
            self.drop(client, f"{len(client.outbox)} bytes behind")
        else:
            self.watch(client)

    def watch(self, client: Client) -> None:
        """Register the client for OUT if there is data to send, and for IN unless it is paused."""
        mask = int(Event.OUT) if client.outbox else 0
        if not client.ended and len(client.outbox) <= PAUSE:
            mask |= Event.IN
        if not mask:
            self.drop(client)  # it has ended, and has received everything
        elif mask != client.mask:
            self.ep.modify(client.sock, mask)
            client.mask = mask

    def drop(self, client: Client, why: str | None = None) -> None:
        """Disconnect a client. This frees a file descriptor for the next one."""
        # First unregister: closing does not end a registration while a duplicate is open.
        self.ep.unregister(client.sock)
        client.sock.close()
        self.clients.discard(client)
        self.ep.modify(self.listener, Event.IN)
        if why:
            print(f"dropped {client.name.decode()}: {why}", flush=True)


def serve(listener: socket.socket, signals: pyepoll.Signals, limit: int) -> None:
    """Run the room until stdin ends or a signal comes."""
    with pyepoll.Epoll[Handler]() as ep:

        def read_stdin(_events: Event) -> None:
            if not os.read(0, 4096):
                ep.close()

        def stop(_events: Event) -> None:
            signals.read()  # or close() would send them again
            ep.close()

        room = Room(ep, listener, limit)
        ep.register(listener, Event.IN, data=room.accept)
        ep.register(signals, Event.IN, data=stop)
        if sys.stdin:
            # A regular file or /dev/null is always ready, and epoll refuses it.
            with contextlib.suppress(PermissionError):
                ep.register(sys.stdin, Event.IN, data=read_stdin)
        try:
            for handle, events in ep:  # until one of them closes it
                handle(events)
        finally:
            for client in room.clients:
                client.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pass each client's lines on to all others.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--limit", type=int, default=1 << 20, help="bytes a client may be behind")
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
        serve(listener, signals, args.limit)


if __name__ == "__main__":
    main()
