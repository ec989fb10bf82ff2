"""The EpollSelector class: selectors.EpollSelector on pyepoll's core."""

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from selectors import BaseSelector, SelectorKey
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _epoll
from ._core import Epoll

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["EpollSelector"]

T = TypeVar("T")

_epoll._use_keys(SelectorKey)


class _Keys(Mapping["FileDescriptorLike", SelectorKey]):
    """A live, read-only view of a selector's keys by file object or fd; iterates over the fds.

    Each iteration goes over a copy that is made when it begins: other threads, and the body of the loop, may
    register and unregister meanwhile.
    """

    __slots__ = ("_fd_to_key",)

    def __init__(self, fd_to_key: dict[int, SelectorKey]) -> None:
        # Not the selector: it would be part of a cycle, and its fd open until the garbage is collected.
        self._fd_to_key = fd_to_key

    @overload
    def get(self, fileobj: "FileDescriptorLike", default: None = None) -> SelectorKey | None: ...
    @overload
    def get(self, fileobj: "FileDescriptorLike", default: SelectorKey | T) -> SelectorKey | T: ...
    def get(self, fileobj: "FileDescriptorLike", default: object = None) -> object:
        """Return the SelectorKey of a registered file object, else default.

        Raises ValueError for an object that is no file object.
        """
        return self._fd_to_key.get(_epoll._key_number(self._fd_to_key, fileobj), default)

    def __getitem__(self, fileobj: "FileDescriptorLike") -> SelectorKey:
        """Return the SelectorKey of a file object, which may be closed, or of an fd.

        Raises KeyError when it is not registered, ValueError for an object that is no file object.
        """
        key = self._fd_to_key.get(_epoll._key_number(self._fd_to_key, fileobj))
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __iter__(self) -> Iterator[int]:
        """Iterate over the fds, in the order of their registration."""
        return iter(self._fd_to_key.copy())

    def items(self) -> "ItemsView[FileDescriptorLike, SelectorKey]":
        """Return a live view of the pairs (fd, SelectorKey)."""
        return _Items(self)

    def values(self) -> ValuesView[SelectorKey]:
        """Return a live view of the SelectorKeys."""
        return _Values(self)

    def __len__(self) -> int:
        """Return how many file objects are registered."""
        return len(self._fd_to_key)


class _Items(ItemsView["FileDescriptorLike", SelectorKey]):
    __slots__ = ()
    _mapping: _Keys

    def __iter__(self) -> "Iterator[tuple[FileDescriptorLike, SelectorKey]]":
        return iter(self._mapping._fd_to_key.copy().items())


class _Values(ValuesView[SelectorKey]):
    __slots__ = ()
    _mapping: _Keys

    def __iter__(self) -> Iterator[SelectorKey]:
        return iter(self._mapping._fd_to_key.copy().values())

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)


@_epoll._own_methods
class EpollSelector(_epoll.Selector, BaseSelector):
    """A drop-in for ``selectors.EpollSelector``: faster, exact to the nanosecond, without stale events.

    It is used like any selector::

        with EpollSelector() as selector:
            selector.register(sock, selectors.EVENT_READ, data)
            for key, events in selector.select(timeout):
                ...

    It adds ``flags`` to ``register`` and ``modify``. Every method may be called from any thread at any time,
    and in the child of a fork the selector is a copy with registrations of its own. A file that was
    closed while a duplicate keeps it open does not wake the selector indefinitely, and an fd that has been
    reused can be registered: the kernel decides whether it is new, not the earlier registration.

    always_ready: whether to accept files that the kernel refuses with EPERM, Operation not permitted, as
        regular files and /dev/null, and report them as ready for each event asked for; see :class:`Epoll`.

    Raises OSError: EMFILE or ENFILE when no fd is left. See epoll(7).
    """

    # Not in the dict that BaseSelector gives: methods are found faster while an object has none.
    __slots__ = ("_map",)

    _selector_cls: Callable[[], Any] = Epoll

    def __init__(self, *, always_ready: bool = False) -> None:
        # A replacement of the class need not know the option.
        options = {"always_ready": True} if always_ready else {}
        self._selector = self._selector_cls(**options)
        self._map: _Keys | None = _Keys(self._fd_to_key)

    def fileno(self) -> int:
        """Return the fd of the epoll. Raises ValueError when the selector is closed."""
        number: int = self._selector.fileno()
        return number

    def get_map(self) -> Mapping["FileDescriptorLike", SelectorKey]:
        """Return a live mapping of file objects to their SelectorKeys; None once the selector is closed.

        A loop over it goes over the registrations that there are when it begins: the loop's body and other
        threads may register and unregister meanwhile.
        """
        return self._map  # type: ignore[return-value]

    def get_key(self, fileobj: "FileDescriptorLike") -> SelectorKey:
        """Return the SelectorKey of a registered file object.

        Raises KeyError when it is not registered, ValueError for an object that is no file object,
        OverflowError for a fileno() that does not fit 32 bits, RuntimeError when the selector is closed.
        """
        if self._map is None:
            raise RuntimeError("Selector is closed")
        return self._map[fileobj]

    def close(self) -> None:
        """Close the epoll and forget the keys; a second close does nothing.

        A select() that waits in another thread raises ValueError. Raises OSError as Epoll.close, when the
        selector is closed all the same.
        """
        try:
            self._selector.close()
        finally:
            self._fd_to_key.clear()
            self._map = None
