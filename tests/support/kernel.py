"""The kernel's view of an epoll, read from fdinfo, and whether the object agrees with it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

import pyepoll
from pyepoll import Event
from support.threads import until

Epoll = pyepoll.Epoll[Any]

IMPLIED = pyepoll.EPOLLERR | pyepoll.EPOLLHUP
"""The bits that the kernel adds to every mask."""


class HasFileno(Protocol):
    def fileno(self, /) -> int: ...


def instance_fd(ep: int | HasFileno) -> int:
    """The fd of the kernel instance, which for an Epoll differs from fileno()."""
    if isinstance(ep, int):
        return ep
    epoll: Any = getattr(ep, "_selector", ep)
    number: int = getattr(epoll, "_instance_fd", epoll.fileno)()
    return number


def fdinfo_lines(ep: int | HasFileno) -> list[tuple[int, int, int]]:
    """The kernel's registrations in an epoll, as (fd, events, epoll data).

    An fd can be there twice: a stale registration (its fd closed, its file open elsewhere) and a live one.
    """
    with open(f"/proc/thread-self/fdinfo/{instance_fd(ep)}") as file:
        fields = [line.split() for line in file if line.startswith("tfd:")]
    return [(int(f[1]), int(f[3], 16), int(f[5], 16)) for f in fields]


def fdinfo(ep: int | HasFileno) -> dict[int, tuple[int, int]]:
    """The kernel's registrations in an epoll: fd to (events with ERR and HUP added, epoll data)."""
    return {fd: (events, data) for fd, events, data in fdinfo_lines(ep)}


def agree(ep: pyepoll.Epoll[Any]) -> bool:
    """Whether the object's registrations are the kernel's; a disarmed one-shot shows no bits and differs."""
    believed = {fd: events | IMPLIED for fd, (events, _) in ep.registrations.items()}
    return believed == {fd: events for fd, (events, _) in fdinfo(ep).items()}


@contextlib.contextmanager
def stale_registration(ep: Epoll) -> Iterator[None]:
    """Make a ready stale registration. Until the end, the kernel cannot remove it by itself."""
    fd = os.eventfd(1)
    duplicate = os.dup(fd)
    try:
        ep.register(fd, Event.IN, "stale")
    except BaseException:
        os.close(duplicate)
        raise
    finally:
        os.close(fd)
    try:
        with contextlib.suppress(OSError):
            ep.unregister(fd)
        yield
    finally:
        os.close(duplicate)


def rebuild(ep: Epoll) -> None:
    """Make the epoll replace its kernel instance once."""
    rebuilds = ep.stats().rebuilds
    with stale_registration(ep):
        until(lambda: ep.poll(0) is not None and ep.stats().rebuilds > rebuilds)
