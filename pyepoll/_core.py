"""The Epoll class: the core in C, and the methods that need no C."""

import signal
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, overload

from . import _epoll
from ._event import Event

__all__ = ["BusyPoll", "Epoll", "Registrations", "Stats"]

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)  # Epoll() without an annotation is an Epoll[Any].
else:
    from typing import TypeVar

    T = TypeVar("T")
U = TypeVar("U")


def refuse_to_copy(self: object, protocol: object) -> NoReturn:
    """Refuse copy and pickle: the object stands for an open file, or is part of one that does."""
    raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object")


class BusyPoll(NamedTuple):
    """How an epoll busy-polls network cards before it sleeps (Linux 6.9)."""

    usecs: int
    """How long to poll, in microseconds, 0 to 2**31-1; 0 is off."""
    budget: int = 8
    """How many packets each attempt takes, 0 to 65535; above 64 needs CAP_NET_ADMIN."""
    prefer: bool = False
    """Whether to poll instead of taking interrupts."""


class Stats(NamedTuple):
    """Counters of an epoll since it was made; objects that share an epoll by ``fromfd`` share them."""

    waits: int
    """Calls of epoll_wait."""
    events: int
    """Events that these calls returned."""
    stale_events: int
    """Events that were dropped because their registration had been removed or replaced."""
    rebuilds: int
    """How often stale registrations were removed, by EPOLL_CTL_DEL or by replacing the kernel instance.
    A count that keeps rising means that fds leak into children or duplicates."""
    failed_rebuilds: int
    """Attempts to remove a stale registration that failed."""
    lost_registrations: int
    """Registrations that were given up because their fd was found closed."""


# The key is Any to type checkers: a look-up takes objects with fileno() too, iteration yields ints.
class Registrations(Mapping[Any, tuple[Event, T]]):
    """A live, read-only view of an Epoll's interest list: fd to ``(events, data)``.

    A key may also be an object with ``fileno()``. Iteration goes over the fds that are registered when it
    begins. ``items()`` and ``values()`` leave out those that have been unregistered meanwhile, by the loop's
    own body or by another thread; so ``dict(view.items())`` always succeeds, while ``dict(view)`` raises
    KeyError if another thread unregisters an fd in between.
    """

    __slots__ = ("_ep",)
    _ep: _epoll.Epoll[T]

    # Not __init__: without an Epoll, even bool() of it would raise.
    def __new__(cls, epoll: _epoll.Epoll[T]) -> Self:
        if not isinstance(epoll, _epoll.Epoll):
            raise TypeError(f"{cls.__name__}() takes an Epoll, not {type(epoll).__name__}")
        self = super().__new__(cls)
        self._ep = epoll
        return self

    def __getitem__(self, fd: "FileDescriptorLike") -> tuple[Event, T]:
        """Return ``(events, data)`` of a registered fd, an int or an object with fileno().

        Raises KeyError when it is not registered, ValueError for a closed object, OverflowError if its
        fileno() does not fit a C int, and the exceptions of fileno().
        """
        registration = self._ep._registration(fd)
        if registration is None:
            raise KeyError(fd)
        return registration

    @overload
    def get(self, fd: "FileDescriptorLike", default: None = None) -> tuple[Event, T] | None: ...
    @overload
    def get(self, fd: "FileDescriptorLike", default: tuple[Event, T] | U) -> tuple[Event, T] | U: ...
    def get(self, fd: "FileDescriptorLike", default: object = None) -> object:
        """Return ``(events, data)`` of a registered fd, else default; errors as ``[]``, without KeyError."""
        registration = self._ep._registration(fd)
        return default if registration is None else registration

    def __contains__(self, fd: object) -> bool:
        """Return whether fd, an int or an object with fileno(), is registered.

        Raises ValueError for a closed object, OverflowError if its fileno() does not fit a C int, and the
        exceptions of fileno().
        """
        return self._ep._registration(fd) is not None

    def keys(self) -> KeysView[int]:
        """Return a live view of the fds."""
        return KeysView(self)

    def items(self) -> ItemsView[int, tuple[Event, T]]:
        """Return a live view of the pairs ``(fd, (events, data))``."""
        return _Items(self)

    def values(self) -> ValuesView[tuple[Event, T]]:
        """Return a live view of the pairs ``(events, data)``."""
        return _Values(self)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the fds that are registered now, in ascending order."""
        return iter(self._ep._fds())

    def __len__(self) -> int:
        """Return how many fds are registered."""
        return len(self._ep)

    def __repr__(self) -> str:
        """Return the type's name and the mapping as a dict."""
        return f"{type(self).__name__}({dict(self.items())!r})"

    __reduce_ex__ = refuse_to_copy


class _Items(ItemsView[int, tuple[Event, T]]):
    """Registrations as pairs; collections.abc's own looks each fd up and raises KeyError if it has gone."""

    __slots__ = ()
    _mapping: Registrations[T]

    def __iter__(self) -> Iterator[tuple[int, tuple[Event, T]]]:
        for fd in self._mapping:
            registration = self._mapping.get(fd)
            if registration is not None:
                yield fd, registration


class _Values(ValuesView[tuple[Event, T]]):
    __slots__ = ()
    _mapping: Registrations[T]

    def __iter__(self) -> Iterator[tuple[Event, T]]:
        for _, registration in self._mapping.items():
            yield registration

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)


@_epoll._own_methods
class Epoll(_epoll.Epoll[T]):
    __doc__ = _epoll.Epoll.__doc__
    __slots__ = ()

    def __enter__(self) -> Self:
        """Return the object itself; ValueError if it is closed."""
        self._public_fd()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
        /,
    ) -> None:
        """Close the object."""
        self.close()

    def __repr__(self) -> str:
        """Return the fd and the number of registrations, or that the epoll is closed."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        if self.closed:
            return f"<{name} closed>"
        try:
            return f"<{name} fd={self._public_fd()} registered={len(self)}>"
        except ValueError:  # Closed meanwhile.
            return f"<{name} closed>"
        except OSError as error:  # Another object has closed the same epoll.
            return f"<{name} unusable: {error.strerror}>"

    __reduce_ex__ = refuse_to_copy

    @property
    def registrations(self) -> Registrations[T]:
        """A live, read-only mapping of fd to ``(events, data)``: the interest list of this object."""
        return Registrations(self)

    def stats(self) -> Stats:
        """Return the epoll's counters as a :class:`Stats`. Never raises, not even after close."""
        return Stats(*self._stats())

    def get_busy_poll(self) -> BusyPoll:
        """Return how the epoll busy-polls network cards.

        Raises OSError: ENOTTY before Linux 6.9, EOPNOTSUPP where the kernel is built without
        CONFIG_NET_RX_BUSY_POLL, EBADF when another object has closed the same epoll; ValueError when the
        object is closed. See ioctl_eventpoll(2), EPIOCGPARAMS.
        """
        return BusyPoll(*self._get_params())

    def set_busy_poll(self, usecs: int, budget: int = 8, prefer: bool = False) -> None:
        """Set how the epoll busy-polls network cards before it sleeps.

        usecs: how long to poll, in microseconds, 0 to 2**31-1; 0 turns it off.
        budget: how many packets each attempt takes, 0 to 65535.
        prefer: whether to poll instead of taking interrupts.

        ``ep.set_busy_poll(*params)`` takes the result of :meth:`get_busy_poll`.

        Raises OSError: ENOTTY before Linux 6.9, EOPNOTSUPP where the kernel is built without
        CONFIG_NET_RX_BUSY_POLL, EPERM for a budget above 64 without CAP_NET_ADMIN, EINVAL for usecs above
        2**31-1, EBADF when another object has closed the same epoll; OverflowError for a number that does
        not fit the kernel's struct; ValueError when the object is closed. See ioctl_eventpoll(2),
        EPIOCSPARAMS.
        """
        self._set_params(usecs, budget, prefer)


_epoll._use_signals({int(each): each for each in signal.Signals})
