"""The echo servers in Python: ``python -m benchmarks.servers {pyepoll,select.epoll} SECONDS``.

Each prints its port and serves until it is killed, for so many seconds at the most, and makes the
calls that ``echo.c`` makes. Messages are 64 bytes, one at a time: a send always has room.
"""

import select
import signal
import socket
import sys

import pyepoll
from pyepoll import Event

__all__: list[str] = []

MESSAGE_MAX = 256


def accept(listener: socket.socket) -> socket.socket:
    conn, _address = listener.accept()
    conn.setblocking(False)
    return conn


def serve_pyepoll(listener: socket.socket) -> None:
    with pyepoll.Epoll[socket.socket]() as ep:
        ep.register(listener, Event.IN, listener)
        for conn, _events in ep:
            if conn is listener:
                conn = accept(listener)
                ep.register(conn, Event.IN, conn)
            elif message := conn.recv(MESSAGE_MAX):
                conn.send(message)
            else:
                ep.unregister(conn)
                conn.close()


def serve_select_epoll(listener: socket.socket) -> None:
    conns = {listener.fileno(): listener}
    with select.epoll() as ep:
        ep.register(listener, select.EPOLLIN)
        while True:
            for fd, _events in ep.poll():
                conn = conns[fd]
                if conn is listener:
                    conn = accept(listener)
                    conns[conn.fileno()] = conn
                    ep.register(conn, select.EPOLLIN)
                elif message := conn.recv(MESSAGE_MAX):
                    conn.send(message)
                else:
                    ep.unregister(fd)
                    del conns[fd]
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
