"""A TCP proxy: forwards each connection to a target, with at most 64 KiB in memory for each direction.

    $ python proxy.py 127.0.0.1:8000 127.0.0.1:9000 --idle 60
    listening on 127.0.0.1:8000

If one peer ends its stream, the other may still send. After an error, or ``--idle`` seconds without data,
both peers get a reset, so that neither takes a part for the whole. SIGINT and SIGTERM stop the proxy.
"""

import argparse
import itertools
import os
import socket
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from signal import SIGINT, SIGTERM

from pyepoll import Epoll, Event, Signals, Timer

RESET, FINISH = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # what close() does, by SO_LINGER


def flow(ep: Epoll[object], source: socket.socket, sink: socket.socket) -> Iterator[bool]:
    """Move data until the source ends. Yield when a socket would block: its next edge continues the flow."""
    data = b""
    for turn in itertools.count(1):
        try:
            if not (data := data or source.recv(65536)):
                sink.send(b"")  # would block while the sink connects: shutdown() would cancel that
                sink.shutdown(socket.SHUT_WR)
                sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, FINISH)
                return
            data = data[sink.send(data) :]
            if turn % 16:
                continue
            ep.rearm(sink if data else source)  # go on after the other connections
        except BlockingIOError:
            pass
        yield True


class Connection(ExitStack):
    """A client and its server; close() undoes what open() did."""

    def open(self, ep: Epoll[object], listener: socket.socket, target: tuple[str, int]) -> None:
        server = self.enter_context(socket.socket())  # first: no client without an fd for its server
        client = self.enter_context(listener.accept()[0])
        self.sockets = client, server
        self.flows = [flow(ep, client, server), flow(ep, server, client)]
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small pieces need not wait
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            ep.register(sock, Event.IN | Event.OUT | Event.ET, data=self)
            self.callback(ep.unregister, sock)
        with suppress(BlockingIOError):  # in progress: OUT or ERR follows
            server.connect(target)

    def move(self, events: Event) -> bool:
        """Move data both ways; return False at the end of both, or after an error."""
        try:
            for sock in self.sockets if events.error else ():
                if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
            self.flows = [flow for flow in self.flows if next(flow, False)]
        except OSError as error:
            if not isinstance(error, (ConnectionResetError, BrokenPipeError)):
                print(f"proxy: {error}", file=sys.stderr)  # such as: the target refuses connections
            return False
        return bool(self.flows)


def address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    if int(port) not in range(65536):
        raise ValueError
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward TCP connections to a target.")
    parser.add_argument("listen", type=address, help="HOST:PORT; port 0: any free port")
    parser.add_argument("target", type=address, help="HOST:PORT")
    parser.add_argument("--idle", type=float, default=60, help="seconds without data; default: 60")
    args = parser.parse_args()
    try:
        target = socket.gethostbyname(args.target[0]), args.target[1]  # once, because it may wait
        listener = socket.create_server(args.listen, backlog=1024)
    except OSError as error:  # no such host, or the port is taken
        parser.error(str(error))
    connections = OrderedDict[Connection, float]()  # the time of the last event; the oldest is first
    with listener, Epoll[object]() as ep, Timer(interval=0.5) as tick, Signals(SIGINT, SIGTERM) as signals:
        listener.setblocking(False)
        for file in listener, tick, signals:
            ep.register(file, Event.IN, data=file)
        print("listening on {}:{}".format(*listener.getsockname()), flush=True)
        for source, events in ep:
            if isinstance(source, Connection):
                connections[source] = time.monotonic()
                connections.move_to_end(source)
                if not source.move(events):
                    del connections[source]
                    source.close()
            elif source is listener:
                connection = Connection()
                try:
                    connection.open(ep, listener, target)
                    connections[connection] = time.monotonic()
                except OSError as error:
                    connection.close()
                    if not isinstance(error, (BlockingIOError, ConnectionAbortedError)):
                        print(f"proxy: {error}", file=sys.stderr)
                        ep.modify(listener, 0)  # no fd is left: wait for a tick, or the loop would spin
            elif source is tick:
                tick.read()
                ep.modify(listener, Event.IN)
                while connections and next(iter(connections.values())) <= time.monotonic() - args.idle:
                    connections.popitem(last=False)[0].close()
            else:
                signals.read()
                break
        for connection in connections:
            connection.close()


if __name__ == "__main__":
    main()
