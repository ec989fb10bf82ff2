"""The LoopSelector class: the selector of an event loop, which asks the kernel for as little as possible."""

from collections.abc import Iterator, Mapping
from selectors import BaseSelector, SelectorKey
from typing import TYPE_CHECKING, Any

from . import _epoll
from ._core import Epoll, refuse_to_copy

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["LoopSelector"]

_base: Any = _epoll._load_aio()["LoopSelector"]


class _Keys(Mapping["FileDescriptorLike", SelectorKey]):
    """A live, read-only view of a selector's keys by file object or fd; iterates over the fds."""

    __slots__ = ("_selector",)

    def __init__(self, selector: "LoopSelector") -> None:
        self._selector = selector

    def get(self, fileobj: "FileDescriptorLike", default: Any = None) -> Any:
        """Return the SelectorKey of a registered file object, else default.

        Raises ValueError for an object that is no file object.
        """
        key = self._selector._get(fileobj)
        return default if key is None else key

    def __getitem__(self, fileobj: "FileDescriptorLike") -> SelectorKey:
        """Return the SelectorKey of a file object, which may be closed, or of an fd.

        Raises KeyError when it is not registered, ValueError for an object that is no file object.
        """
        key: SelectorKey | None = self._selector._get(fileobj)
        if key is None:
            raise KeyError(f"{fileobj!r} is not registered")
        return key

    def __contains__(self, fileobj: object) -> bool:
        try:
            return self._selector._get(fileobj) is not None
        except ValueError:
            return False

    def __iter__(self) -> Iterator[int]:
        """Iterate over the fds that are registered now."""
        return iter(self._selector._fds())

    def __len__(self) -> int:
        """Return how many file objects are registered."""
        count: int = self._selector._count
        return count


class LoopSelector(_base, BaseSelector):  # type: ignore[misc]
    """The selector of :class:`EventLoop`: a :class:`selectors.BaseSelector` that is lazy where it can be.

    What is changed for a ``socket.socket`` that is registered already, or was until a moment ago, reaches the
    kernel with the next ``select()``; every other change at once. A file that was closed without
    ``unregister()`` is given up when the next file with its fd is registered or modified.

    It belongs to the process that made it: in the child of a fork, ``register()``, ``modify()`` and
    ``select()`` raise RuntimeError, and the parent's is not touched.

    Raises OSError: EMFILE or ENFILE when no fd is left.
    """

    __slots__ = ("__weakref__", "_closed")

    def __init__(self) -> None:
        self._closed = False
        self._use_epoll(Epoll())

    def fileno(self) -> int:
        """Return the fd of the epoll. Raises ValueError when the selector is closed."""
        fd: int = self._selector.fileno()
        return fd

    def get_map(self) -> Mapping["FileDescriptorLike", SelectorKey]:
        """Return a live mapping of file objects to their SelectorKeys; None once the selector is closed."""
        return None if self._closed else _Keys(self)  # type: ignore[return-value]

    def get_key(self, fileobj: "FileDescriptorLike") -> SelectorKey:
        """Return the SelectorKey of a registered file object.

        Raises KeyError when it is not registered, ValueError for an object that is no file object,
        OverflowError for a fileno() that does not fit 32 bits, RuntimeError when the selector is closed.
        """
        if self._closed:
            raise RuntimeError("Selector is closed")
        return _Keys(self)[fileobj]

    def close(self) -> None:
        """Close the epoll and forget the keys; a second close does nothing.

        A select() that waits in another thread raises ValueError. Raises OSError as Epoll.close, when the
        selector is closed all the same.
        """
        try:
            self._selector.close()
        finally:
            self._clear()  # Finalizers that it runs may ask for keys, as asyncio's transports of pipes do.
            self._closed = True

    __reduce_ex__ = refuse_to_copy
