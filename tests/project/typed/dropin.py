"""Written for ``select``, with the import changed. Checked by test_types.py, never run."""

import socket

import pyepoll as select


def serve(ep: select.epoll, sock: socket.socket) -> None:
    ep.register(sock.fileno(), select.EPOLLIN | select.EPOLLET)
    for fd, event in ep.poll(1.0):
        if event & select.EPOLLIN:
            print(fd + 1)


class Loop:
    def __init__(self) -> None:
        self.ep = select.epoll(sizehint=10, flags=select.EPOLL_CLOEXEC)
        self.ep.register(0, select.EPOLLIN)

    def watches(self, poller: object) -> bool:
        return isinstance(poller, select.epoll) and poller.fileno() == self.ep.fileno()

    def close(self) -> None:
        try:
            self.ep.unregister(0)
        except select.error as error:
            print(error.errno)
        self.ep.close()


with select.epoll() as ep:
    ep.register(0, select.EPOLLIN)
    ep.modify(0, select.EPOLLOUT)
    for fd, event in ep.poll():
        print(fd, event)

shared: select.epoll = select.epoll.fromfd(3)
ready: dict[int, int] = dict(shared.poll(timeout=0.5, maxevents=10))
