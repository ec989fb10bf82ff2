"""Level, edge, one-shot, exclusive and the other flags behave as epoll(7) describes."""

import itertools
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.fds import Pipe
from support.kernel import IMPLIED, agree, fdinfo
from support.threads import until, waiters

import pyepoll
from pyepoll import Event

Eventfd = Callable[..., int]
Sockets = tuple[socket.socket, socket.socket]
Ready = Callable[[pyepoll.Epoll[Any]], dict[Any, Event]]


def by_poll(ep: pyepoll.Epoll[Any]) -> dict[Any, Event]:
    return dict(ep.poll(0))


def by_wait(ep: pyepoll.Epoll[Any]) -> dict[Any, Event]:
    return dict(ep.wait(0))


@pytest.fixture(params=[by_poll, by_wait])
def ready(request: pytest.FixtureRequest) -> Ready:
    """The ready events, by each way to wait."""
    got: Ready = request.param
    return got


def disarmed(ep: pyepoll.Epoll[Any], fd: int) -> bool:
    """Whether the kernel holds the registration with no event to report: a one-shot that has fired."""
    return not fdinfo(ep)[fd][0] & (IMPLIED | Event.IN | Event.OUT)


# Level.


def test_level_reports_while_the_condition_lasts(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready) -> None:
    ep.register(pipe.read, Event.IN)
    assert ready(ep) == {}
    os.write(pipe.write, b"ab")
    for _ in range(3):
        assert ready(ep) == {pipe.read: Event.IN}
    os.read(pipe.read, 1)
    assert ready(ep) == {pipe.read: Event.IN}
    os.read(pipe.read, 1)
    assert ready(ep) == {}


def test_out_reports_while_there_is_room(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready) -> None:
    ep.register(pipe.write, Event.OUT)
    assert ready(ep) == {pipe.write: Event.OUT}
    pipe.fill()
    assert ready(ep) == {}
    os.read(pipe.read, 65536)
    assert ready(ep) == {pipe.write: Event.OUT}


def test_the_default_mask_is_in_out_pri(ep: pyepoll.Epoll[int], tcp_pair: Sockets, ready: Ready) -> None:
    a, b = tcp_pair
    ep.register(a)
    assert ep.registrations[a.fileno()][0] == Event.IN | Event.OUT | Event.PRI
    assert ready(ep) == {a.fileno(): Event.OUT}
    b.send(b"x")
    b.send(b"!", socket.MSG_OOB)
    until(lambda: ready(ep) == {a.fileno(): Event.IN | Event.OUT | Event.PRI})


def test_mask_0_reports_err_and_hup_only(
    ep: pyepoll.Epoll[int], make_pipe: Callable[[], Pipe], ready: Ready
) -> None:
    hup, err = make_pipe(), make_pipe()
    err.fill()
    ep.register(hup.read, 0)
    ep.register(err.write, 0)
    os.write(hup.write, b"x")
    assert ready(ep) == {}
    hup.close(hup.write)
    err.close(err.read)
    assert ready(ep) == {hup.read: Event.HUP, err.write: Event.ERR}


@pytest.mark.parametrize("mask", [Event.RDNORM, Event.WRNORM, Event.RDNORM | Event.WRNORM])
def test_norm_and_band_events_are_reported(
    ep: pyepoll.Epoll[int], socketpair: Sockets, ready: Ready, mask: Event
) -> None:
    a, b = socketpair
    ep.register(a, mask)
    assert ready(ep) == ({a.fileno(): Event.WRNORM} if mask & Event.WRNORM else {})
    b.send(b"x")
    assert ready(ep) == {a.fileno(): mask}


# Edge.


def test_edge_reports_a_change_once(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready) -> None:
    ep.register(pipe.read, Event.IN | Event.ET)
    assert ready(ep) == {}
    os.write(pipe.write, b"ab")
    assert ready(ep) == {pipe.read: Event.IN}
    assert ready(ep) == {}
    os.read(pipe.read, 1)
    assert ready(ep) == {}, "unread data is no change"
    os.write(pipe.write, b"c")
    assert ready(ep) == {pipe.read: Event.IN}, "more data is"
    assert ready(ep) == {}
    pipe.close(pipe.write)
    assert ready(ep) == {pipe.read: Event.IN | Event.HUP}
    assert ready(ep) == {}


def test_edge_reports_a_condition_that_existed_before(
    ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready
) -> None:
    os.write(pipe.write, b"x")
    ep.register(pipe.read, Event.IN | Event.ET)
    assert ready(ep) == {pipe.read: Event.IN}
    assert ready(ep) == {}


def test_several_changes_are_reported_once(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready) -> None:
    ep.register(pipe.read, Event.IN | Event.ET)
    for _ in range(3):
        os.write(pipe.write, b"x")
    assert ready(ep) == {pipe.read: Event.IN}
    assert ready(ep) == {}


@pytest.mark.parametrize(
    "again",
    [
        lambda ep, fd: ep.rearm(fd),
        lambda ep, fd: ep.modify(fd, Event.IN | Event.ET),
        lambda ep, fd: (ep.unregister(fd), ep.register(fd, Event.IN | Event.ET)),
    ],
    ids=["rearm", "modify", "unregister and register"],
)
def test_rearm_and_modify_report_an_edge_again(
    ep: pyepoll.Epoll[int],
    pipe: Pipe,
    ready: Ready,
    again: Callable[[pyepoll.Epoll[int], int], object],
) -> None:
    os.write(pipe.write, b"x")
    ep.register(pipe.read, Event.IN | Event.ET)
    for _ in range(2):
        assert ready(ep) == {pipe.read: Event.IN}
        assert ready(ep) == {}
        again(ep, pipe.read)
    os.read(pipe.read, 1)
    assert ready(ep) == {}, "asking again makes no edge of its own"
    assert agree(ep)


# One-shot.


@pytest.mark.parametrize("edge", [0, Event.ET])
def test_oneshot_reports_once(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready, edge: int) -> None:
    ep.register(pipe.read, Event.IN | Event.ONESHOT | edge)
    os.write(pipe.write, b"x")
    assert not disarmed(ep, pipe.read)
    assert ready(ep) == {pipe.read: Event.IN}
    assert disarmed(ep, pipe.read)
    assert ready(ep) == {}
    os.write(pipe.write, b"y")
    pipe.close(pipe.write)
    assert ready(ep) == {}, "not even the end of the stream"
    assert pipe.read in ep
    assert ep.registrations[pipe.read][0] == Event.IN | Event.ONESHOT | edge


@pytest.mark.parametrize(
    "again",
    [
        lambda ep, fd: ep.rearm(fd),
        lambda ep, fd: ep.modify(fd, Event.IN | Event.ONESHOT),
    ],
    ids=["rearm", "modify"],
)
def test_rearm_and_modify_arm_a_oneshot(
    ep: pyepoll.Epoll[int],
    pipe: Pipe,
    ready: Ready,
    again: Callable[[pyepoll.Epoll[int], int], object],
) -> None:
    ep.register(pipe.read, Event.IN | Event.ONESHOT)
    os.write(pipe.write, b"x")
    for _ in range(3):
        assert ready(ep) == {pipe.read: Event.IN}
        assert ready(ep) == {}
        again(ep, pipe.read)
    os.read(pipe.read, 1)
    assert ready(ep) == {}
    os.write(pipe.write, b"y")
    assert ready(ep) == {pipe.read: Event.IN}


def test_modify_turns_a_oneshot_into_level(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready) -> None:
    ep.register(pipe.read, Event.IN | Event.ONESHOT)
    os.write(pipe.write, b"x")
    assert ready(ep) == {pipe.read: Event.IN}
    ep.modify(pipe.read, Event.IN)
    for _ in range(2):
        assert ready(ep) == {pipe.read: Event.IN}


def test_oneshot_of_several_events_is_disarmed_by_the_first(
    ep: pyepoll.Epoll[int], socketpair: Sockets, ready: Ready
) -> None:
    a, b = socketpair
    ep.register(a, Event.IN | Event.OUT | Event.ONESHOT)
    assert ready(ep) == {a.fileno(): Event.OUT}
    b.send(b"x")
    assert ready(ep) == {}
    ep.rearm(a)
    assert ready(ep) == {a.fileno(): Event.IN | Event.OUT}


def test_oneshot_wakes_one_of_many_waiters(
    ep: pyepoll.Epoll[int], pool: ThreadPoolExecutor, eventfd: Eventfd
) -> None:
    fd, stop = eventfd(), eventfd()
    ep.register(fd, Event.IN | Event.ONESHOT)
    ep.register(stop, Event.IN)
    waiting = [pool.submit(ep.poll, None, 1) for _ in range(3)]
    until(lambda: waiters() == 3)
    os.eventfd_write(fd, 1)
    until(lambda: waiters() == 2)
    os.eventfd_write(stop, 1)
    assert sorted(w.result(10)[0][0] for w in waiting) == sorted([fd, stop, stop])


# Exclusive.


@pytest.mark.parametrize("edge", [0, Event.ET])
@pytest.mark.parametrize(("exclusive", "woken"), [(Event.EXCLUSIVE, 1), (0, 4)])
def test_exclusive_wakes_one_epoll_of_many(
    pool: ThreadPoolExecutor, eventfd: Eventfd, exclusive: int, woken: int, edge: int
) -> None:
    fd, stop = eventfd(), eventfd()
    eps = [pyepoll.Epoll[int]() for _ in range(4)]
    for ep in eps:
        ep.register(fd, Event.IN | exclusive | edge)
        ep.register(stop, Event.IN)
        assert agree(ep)
    waiting = [pool.submit(ep.poll) for ep in eps]
    until(lambda: waiters() == 4)
    os.eventfd_write(fd, 1)
    until(lambda: sum(w.done() for w in waiting) >= woken)
    # Time for one more to wake, if it were going to.
    time.sleep(0.03)
    assert sum(w.done() for w in waiting) == woken
    assert [w.result() for w in waiting if w.done()] == [[(fd, Event.IN)]] * woken
    os.eventfd_write(stop, 1)
    for w in waiting:
        assert w.result(10)
    for ep in eps:
        ep.close()


# The flags of sockets.


def test_rdhup_reports_that_the_peer_stopped_writing(
    ep: pyepoll.Epoll[int], tcp_pair: Sockets, ready: Ready
) -> None:
    a, b = tcp_pair
    ep.register(a, Event.RDHUP)
    assert ready(ep) == {}
    b.send(b"x")
    assert ready(ep) == {}
    b.shutdown(socket.SHUT_WR)
    until(lambda: ready(ep) == {a.fileno(): Event.RDHUP})
    ep.modify(a, Event.IN)
    assert ready(ep) == {a.fileno(): Event.IN}, "RDHUP is reported only on request"


def test_pri_reports_out_of_band_data(ep: pyepoll.Epoll[int], tcp_pair: Sockets, ready: Ready) -> None:
    a, b = tcp_pair
    ep.register(a, Event.PRI)
    b.send(b"x")
    assert ready(ep) == {}
    b.send(b"!", socket.MSG_OOB)
    until(lambda: ready(ep) == {a.fileno(): Event.PRI})
    assert a.recv(1, socket.MSG_OOB) == b"!"
    assert ready(ep) == {}


# Wake-up.


@pytest.mark.parametrize("more", [0, Event.ET, Event.ONESHOT])
def test_wakeup_reports_the_same_events(ep: pyepoll.Epoll[int], pipe: Pipe, ready: Ready, more: int) -> None:
    ep.register(pipe.read, Event.IN | Event.WAKEUP | more)
    assert ready(ep) == {}
    os.write(pipe.write, b"x")
    assert ready(ep) == {pipe.read: Event.IN}


def test_a_wakeup_flag_removed_by_the_kernel_is_visible(ep: pyepoll.Epoll[int], pipe: Pipe) -> None:
    """The kernel drops it in silence without CAP_BLOCK_SUSPEND, or where it is built without suspend."""
    ep.register(pipe.read, Event.IN | Event.WAKEUP)
    assert agree(ep)
    ep.modify(pipe.read, Event.OUT)
    ep.modify(pipe.read, Event.IN | Event.WAKEUP | Event.ET)
    assert agree(ep)
    ep.rearm(pipe.read)
    assert agree(ep)


# Modify.


@pytest.mark.parametrize(
    ("old", "new"),
    list(itertools.product([Event.IN, Event.OUT, Event(0), Event.IN | Event.ET], repeat=2)),
    ids=str,
)
def test_modify_replaces_the_mask(
    ep: pyepoll.Epoll[int], socketpair: Sockets, ready: Ready, old: Event, new: Event
) -> None:
    a, b = socketpair
    fd = a.fileno()
    b.send(b"x")
    for change, mask in ((ep.register, old), (ep.modify, new)):
        change(a, mask)
        assert ep.registrations[fd] == (mask, fd)
        assert agree(ep)
        expected = mask & (Event.IN | Event.OUT)
        assert ready(ep) == ({fd: expected} if expected else {})


def test_an_epoll_in_an_epoll_is_reported(ep: pyepoll.Epoll[Any], eventfd: Eventfd, ready: Ready) -> None:
    fd = eventfd()
    with pyepoll.Epoll[int]() as inner:
        inner.register(fd, Event.IN)
        ep.register(inner, Event.IN, data=inner)
        assert ready(ep) == {}
        os.eventfd_write(fd, 1)
        assert ready(ep) == {inner: Event.IN}
        assert ready(inner) == {fd: Event.IN}
        os.eventfd_read(fd)
        assert ready(ep) == {}
