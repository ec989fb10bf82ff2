"""maxevents is a limit of one call and nothing else: -1 is none, and no fd starves."""

import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.kernel import fdinfo

import pyepoll
from pyepoll import Event

Eventfd = Callable[..., int]
Wait = Callable[..., list[tuple[Any, Event]]]

MANY = 2000


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:  # for the ids of tests
        return f"Index({self.value})"


def by_poll(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return ep.poll(0, *args)


def by_wait(ep: pyepoll.Epoll[Any], *args: Any) -> list[tuple[Any, Event]]:
    return list(ep.wait(0, *args))


@pytest.fixture(params=[by_poll, by_wait])
def wait(request: pytest.FixtureRequest) -> Wait:
    got: Wait = request.param
    return got


@pytest.fixture
def five(ep: pyepoll.Epoll[int], eventfd: Eventfd) -> set[int]:
    """Five fds, registered and ready."""
    fds = {eventfd(1) for _ in range(5)}
    for fd in fds:
        ep.register(fd, Event.IN)
    return fds


@pytest.fixture
def many() -> Iterator[set[int]]:
    """More ready fds than any buffer starts with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MANY + 100
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"no more than {hard} files may be open")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    fds = {os.eventfd(1, os.EFD_CLOEXEC) for _ in range(MANY)}
    yield fds
    for fd in fds:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("maxevents", [1, 2, 4, 5, 6, True, Index(3)], ids=repr)
def test_maxevents_limits_a_batch(ep: pyepoll.Epoll[int], five: set[int], wait: Wait, maxevents: Any) -> None:
    limit = maxevents.value if isinstance(maxevents, Index) else int(maxevents)
    for _ in range(3):
        events = wait(ep, maxevents)
        assert len(events) == len(dict(events)) == min(limit, 5)
        assert dict(events).keys() <= five


@pytest.mark.parametrize("maxevents", [(), (-1,), (Index(-1),)], ids=repr)
def test_minus_1_is_no_limit(ep: pyepoll.Epoll[int], five: set[int], wait: Wait, maxevents: Any) -> None:
    assert dict(wait(ep, *maxevents)) == dict.fromkeys(five, Event.IN)


@pytest.mark.parametrize("maxevents", [2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**100])
def test_a_huge_maxevents_is_no_limit(
    ep: pyepoll.Epoll[int], five: set[int], wait: Wait, maxevents: int
) -> None:
    assert dict(wait(ep, maxevents)) == dict.fromkeys(five, Event.IN)


@pytest.mark.parametrize(
    ("maxevents", "error"),
    [
        *((number, ValueError) for number in (0, False, -2, -(2**31), -(2**31) - 1, -(2**63), -(2**100))),
        *((1.0, TypeError), ("1", TypeError), (None, TypeError), ([], TypeError), (b"1", TypeError)),
    ],
    ids=repr,
)
def test_an_invalid_maxevents_is_refused(
    ep: pyepoll.Epoll[int], five: set[int], wait: Wait, maxevents: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wait(ep, maxevents)
    assert len(wait(ep)) == 5


def test_maxevents_is_accepted_by_name(ep: pyepoll.Epoll[int], five: set[int]) -> None:
    assert len(ep.poll(maxevents=2, timeout=0)) == 2
    assert len(list(ep.wait(maxevents=2, timeout=0))) == 2


def test_minus_1_has_no_hidden_cap(ep: pyepoll.Epoll[int], many: set[int], wait: Wait) -> None:
    for fd in many:
        ep.register(fd, Event.IN)
    assert len(fdinfo(ep)) == MANY
    for maxevents in (-1, MANY, MANY + 1, 2**100):
        events = wait(ep, maxevents)
        assert len(events) == MANY
        assert dict(events) == dict.fromkeys(many, Event.IN)
    assert len(wait(ep, 1500)) == 1500


def test_a_limit_starves_no_fd(ep: pyepoll.Epoll[int], five: set[int], wait: Wait) -> None:
    """A reported fd goes to the end of the kernel's list: each is reported once in five."""
    for _ in range(3):
        assert {fd for _ in range(5) for fd, _ in wait(ep, 1)} == five


def test_a_limit_loses_no_edge(ep: pyepoll.Epoll[int], eventfd: Eventfd, wait: Wait) -> None:
    fds = {eventfd(1) for _ in range(7)}
    for fd in fds:
        ep.register(fd, Event.IN | Event.ET)
    batches = [wait(ep, 2) for _ in range(5)]
    assert [len(batch) for batch in batches] == [2, 2, 2, 1, 0]
    assert {fd for batch in batches for fd, _ in batch} == fds


def test_iteration_has_no_limit_and_is_fair(ep: pyepoll.Epoll[int], many: set[int]) -> None:
    for fd in many:
        ep.register(fd, Event.IN)
    events = iter(ep)
    for _ in range(2):
        assert {next(events)[0] for _ in range(MANY)} == many
