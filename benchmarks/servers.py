"""The echo servers in Python: ``python -m benchmarks.servers {pyepoll,select.epoll} SECONDS``.

Each prints its port and serves until it is killed, for so many seconds at the most, and makes the
calls that ``echo.c`` makes. Messages are 64 bytes, one at a time: a send always has room.
"""

import select
import signal
import socket
import sys
from collections.abc import Callable

import pyepoll
from pyepoll import Event

__all__: list[str] = []

MESSAGE_MAX = 256

Peer = tuple[Callable[[int], bytes], Callable[[bytes], int], socket.socket]
"""What a connection is to the loop: the two methods it calls, and the socket that they are of."""


def accept(listener: socket.socket) -> Peer:
    conn, _address = listener.accept()
    conn.setblocking(False)
    return conn.recv, conn.send, conn


def serve_pyepoll(listener: socket.socket) -> None:
    with pyepoll.Epoll[Peer]() as ep:
        ep.register(listener, Event.IN, (listener.recv, listener.send, listener))
        for (recv, send, conn), _events in ep:
            if conn is listener:
                peer = accept(listener)
                ep.register(peer[2], Event.IN, peer)
            elif message := recv(MESSAGE_MAX):
                send(message)
            else:
                ep.unregister(conn)
                conn.close()


def serve_select_epoll(listener: socket.socket) -> None:
    peers: dict[int, Peer] = {listener.fileno(): (listener.recv, listener.send, listener)}
    with select.epoll() as ep:
        ep.register(listener, select.EPOLLIN)
        while True:
            for fd, _events in ep.poll():
                recv, send, conn = peers[fd]
                if conn is listener:
                    peer = accept(listener)
                    fd = peer[2].fileno()
                    peers[fd] = peer
                    ep.register(fd, select.EPOLLIN)
                elif message := recv(MESSAGE_MAX):
                    send(message)
                else:
                    ep.unregister(fd)
                    del peers[fd]
                    conn.close()


SERVERS = {"pyepoll": serve_pyepoll, "select.epoll": serve_select_epoll}


def main() -> None:
    serve = SERVERS[sys.argv[1]]
    signal.alarm(int(sys.argv[2]))
    with socket.create_server(("127.0.0.1", 0), backlog=socket.SOMAXCONN) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(listener.getsockname()[1], flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
