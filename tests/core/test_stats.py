"""``Epoll.stats()`` returns a frozen, typed object, whatever state the epoll is in."""

import errno
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from support.seccomp import denied
from support.threads import until

import pyepoll
from pyepoll import Event, Stats, raw

FIELDS = ("waits", "events", "stale_events", "rebuilds", "failed_rebuilds", "lost_registrations")


def test_stats_has_exactly_these_fields() -> None:
    assert Stats._fields == FIELDS
    assert Stats.__annotations__ == dict.fromkeys(FIELDS, int)
    with pyepoll.Epoll() as ep:
        assert type(ep.stats()) is Stats
        assert ep.stats() == Stats(0, 0, 0, 0, 0, 0)


def test_stats_cannot_be_changed() -> None:
    with pyepoll.Epoll() as ep:
        stats: Any = ep.stats()
        for name in (*FIELDS, "more"):
            with pytest.raises(AttributeError):
                setattr(stats, name, 1)
        assert pickle.loads(pickle.dumps(stats)) == stats


def test_stats_is_a_snapshot() -> None:
    with pyepoll.Epoll() as ep, pyepoll.Waker() as waker:
        ep.register(waker, Event.IN)
        waker.wake()
        before = ep.stats()
        ep.poll(0)
        assert before == Stats(0, 0, 0, 0, 0, 0)
        assert ep.stats() == Stats(1, 1, 0, 0, 0, 0)


def test_stats_counts_the_removal_of_stale_registrations() -> None:
    with pyepoll.Epoll() as ep:
        fd = os.eventfd(1)
        kept = os.dup(fd)
        ep.register(fd, Event.IN, data="closed")
        os.close(fd)
        until(lambda: ep.poll(0) == [] and ep.stats().rebuilds == 1)
        stats = ep.stats()
        os.close(kept)
    assert stats.lost_registrations == 1
    assert stats.stale_events >= 1
    assert stats.failed_rebuilds == 0


def test_stats_works_after_close() -> None:
    ep = pyepoll.Epoll()
    ep.poll(0)
    ep.close()
    assert ep.stats().waits == 1


@pytest.fixture
def pwait2() -> Iterator[None]:
    """The setting is the process's."""
    before = pyepoll.use_pwait2(True)
    yield
    pyepoll.use_pwait2(before)


@pytest.mark.usefixtures("pwait2")
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_uses_pwait2_is_false_once_a_wait_was_refused(error: int) -> None:
    """And the wait went on without it."""
    assert raw.uses_pwait2()
    with pyepoll.Epoll() as ep:
        assert denied(lambda: (ep.poll(0.001), raw.uses_pwait2()), error, "epoll_pwait2") == ([], False)


@pytest.mark.usefixtures("pwait2")
def test_uses_pwait2_returns_the_setting() -> None:
    assert pyepoll.use_pwait2(False) is True
    assert raw.uses_pwait2() is False
    assert pyepoll.use_pwait2(True) is False
    assert raw.uses_pwait2() is True
