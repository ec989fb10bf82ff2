"""Types that checkers infer for an Epoll with and without annotation. Checked by test_types.py, never run."""

import socket
from typing import TYPE_CHECKING, Any

import pyepoll
from pyepoll import Epoll, Event

if TYPE_CHECKING:
    from typing import assert_type

sock = socket.socket()

assert_type(Epoll(), Epoll[Any])
assert_type(pyepoll.epoll(), Epoll[Any])
assert_type(Epoll[str](), Epoll[str])
assert_type(Epoll.fromfd(3), Epoll[Any])

anything = Epoll()
anything.register(sock, Event.IN, data=sock)
anything.register(0)
for data, events in anything:
    data.recv(4096)
    assert_type(events, Event)

names: Epoll[str] = Epoll()
names.register(sock, Event.IN, "name")
names.register(sock, Event.IN)  # type: ignore[call-overload]
names.register(sock, Event.IN, 1)  # type: ignore[call-overload]
assert_type(names.poll(), list[tuple[str, Event]])
assert_type(names.registrations[sock], tuple[Event, str])
assert_type(names.registrations.get(sock), tuple[Event, str] | None)
assert_type(dict(names.registrations), dict[int, tuple[Event, str]])
for fd in sorted(names.registrations):
    fd += 1
for fd in names.registrations:
    assert_type(fd, int)
assert_type(list(names.registrations.keys()), list[int])
assert_type(sock in names.registrations, bool)

numbers: Epoll[int] = Epoll()
numbers.register(sock)
assert_type(numbers.stats(), pyepoll.Stats)
assert_type(numbers.stats().waits, int)
numbers.stats().waits = 1  # type: ignore[misc]
assert_type(numbers.get_busy_poll(), pyepoll.BusyPoll)


class Named(Epoll[str]):
    pass


class Logged(pyepoll.epoll):
    def close(self) -> None:
        print("closed", self.closed)
        super().close()


assert_type(Named(), Named)
assert_type(Logged().poll(), list[tuple[Any, Event]])
