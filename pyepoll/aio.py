"""asyncio on pyepoll: ``pyepoll.aio.run(main())``, or ``new_event_loop`` as the loop factory.

The loop is asyncio's own :class:`asyncio.SelectorEventLoop`, with the same semantics. Three things are
different: it waits in a :class:`pyepoll.EpollSelector`, timers have the kernel's resolution (nanoseconds,
not milliseconds; never early), and TCP and Unix stream connections have a transport that receives and sends
in C in the common cases.
"""

import asyncio
import asyncio.events
import asyncio.format_helpers
import asyncio.selector_events
import asyncio.sslproto
import contextlib
import contextvars
import selectors
import socket
import sys
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ._core import refuse_to_copy
from ._epoll import _load_aio
from ._selector import EpollSelector
from ._watch import watch

if TYPE_CHECKING:
    import ssl  # Not every Python has it.

__all__ = ["EventLoop", "SocketTransport", "new_event_loop", "run", "watch"]

T = TypeVar("T")

watch.__module__ = __name__

_aio: Any = SimpleNamespace(**_load_aio())
_stock: Any = asyncio.selector_events
"""Private parts of asyncio's are used through these names, and listed in docs/asyncio.md."""
_sslproto: Any = asyncio.sslproto
_format_callback: Any = asyncio.format_helpers._format_callback_source


class SocketTransport(_aio.SocketTransport, _stock._SelectorSocketTransport):  # type: ignore[misc]
    """asyncio's transport of a stream socket, with ``write()`` and the reading in C.

    The loop makes it. The attributes that C reads have slots; only asyncio's own methods write them.
    """

    __slots__ = (
        "_buffer",
        "_conn_lost",
        "_empty_waiter",
        "_eof",
        "_protocol",
        "_read_ready_cb",
        "_sock",
        "_sock_fd",
    )

    if TYPE_CHECKING:  # _aio._learn_transport() gives it this method.

        def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self: Self = super().__new__(cls)
        self._sock = None  # For __del__, as in asyncio's class.
        return self

    def __repr__(self) -> str:
        try:
            text: str = super().__repr__()
        except AttributeError:  # Made by __new__ alone.
            return object.__repr__(self)
        return text

    __reduce_ex__ = refuse_to_copy

    def _failed(self, error: BaseException, message: str) -> None:
        try:
            raise error
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as raised:
            self._fatal_error(raised, message)
        finally:
            del error  # The traceback leads here: it would be a cycle.


def _is_as_made(owner: type, module: Any, *names: str) -> bool:
    """Return whether these methods are the module's own; a program's replacements must be called instead."""
    return all(getattr(getattr(owner, name, None), "__globals__", None) is vars(module) for name in names)


_READS = "_read_ready", "_read_ready__data_received", "_read_ready__get_buffer"
if _is_as_made(SocketTransport, _stock, "write", *_READS):
    _aio._learn_transport(SocketTransport, socket.socket)
if _is_as_made(asyncio.Handle, asyncio.events, "_run"):
    with contextlib.suppress(AttributeError, TypeError):  # Handles of another shape are asyncio's to run.
        _aio._learn_handles(asyncio.Handle)


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop on pyepoll.

    selector: any :class:`selectors.BaseSelector`; a new :class:`pyepoll.EpollSelector` if it is None. The
    loop closes it.
    """

    # Of a loop that was made by __new__ alone, for repr() and __del__, which read them.
    _closed = True
    _debug = False
    _thread_id: int | None = None

    __reduce_ex__ = refuse_to_copy

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(EpollSelector() if selector is None else selector)

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **context: contextvars.Context | None,
    ) -> SocketTransport:
        if sys.version_info >= (3, 12):
            self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        # CPython 3.15 passes context= to both of these methods, and its transports take it.
        return SocketTransport(self, sock, protocol, waiter, extra, server, **context)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext | None",
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        **context: contextvars.Context | None,
    ) -> asyncio.Transport:
        if sys.version_info >= (3, 12):
            self._ensure_fd_no_transport(rawsock)  # type: ignore[attr-defined]
        tls = _sslproto.SSLProtocol(
            *(self, protocol, sslcontext, waiter, server_side, server_hostname),
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        SocketTransport(self, rawsock, tls, None, extra, server, **context)
        transport: asyncio.Transport = tls._app_transport
        return transport

    def _forget_reused(self, fd: Any) -> None:
        """Remove the callbacks of a file that was closed behind the loop's back, and whose fd is reused."""
        selector = self._selector  # type: ignore[attr-defined]
        key = selector.get_map().get(fd) if isinstance(selector, EpollSelector) else None
        if key is not None:
            try:
                selector._selector.rearm(key.fd)
            except OSError:  # ENOENT: the kernel knows no such registration.
                selector.unregister(key.fd)
                for handle in key.data:
                    if handle is not None:
                        handle.cancel()

    def _add_reader(self, fd: Any, callback: Any, *args: Any, **context: Any) -> asyncio.Handle:
        self._check_closed()  # type: ignore[attr-defined]
        self._forget_reused(fd)
        return super()._add_reader(fd, callback, *args, **context)  # type: ignore[misc,no-any-return]

    def _add_writer(self, fd: Any, callback: Any, *args: Any, **context: Any) -> asyncio.Handle:
        self._check_closed()  # type: ignore[attr-defined]
        self._forget_reused(fd)
        return super()._add_writer(fd, callback, *args, **context)  # type: ignore[misc,no-any-return]

    def _remove_reader(self, fd: Any) -> bool:
        if not self.is_closed():
            self._forget_reused(fd)
        return super()._remove_reader(fd)  # type: ignore[misc,no-any-return]

    def _remove_writer(self, fd: Any) -> bool:
        if not self.is_closed():
            self._forget_reused(fd)
        return super()._remove_writer(fd)  # type: ignore[misc,no-any-return]

    def _process_events(self, event_list: list[tuple[selectors.SelectorKey, int]]) -> None:
        batch = None if self._debug else _aio._batch(self, event_list)
        if batch is None:
            super()._process_events(event_list)  # type: ignore[misc]
        elif event_list:
            self._ready.append(batch)  # type: ignore[attr-defined]

    def _callback_failed(self, handle: Any, error: BaseException) -> None:
        try:
            raise error  # A handler may call sys.exc_info().
        except BaseException as raised:
            source = _format_callback(handle._callback, handle._args)
            context = {"message": f"Exception in callback {source}", "exception": raised, "handle": handle}
            if handle._source_traceback:
                context["source_traceback"] = handle._source_traceback
            self.call_exception_handler(context)
        finally:
            del error  # The traceback leads here: it would be a cycle.


def new_event_loop() -> EventLoop:
    """Return a new :class:`EventLoop`.

    Raises OSError: EMFILE or ENFILE when no fd is left.
    """
    return EventLoop()


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run a coroutine in a new :class:`EventLoop` as :func:`asyncio.run` does, and return its result.

    debug: asyncio's debug mode; None leaves it to ``PYTHONASYNCIODEBUG``. Raises what ``main`` raises;
    RuntimeError when an event loop is running in this thread; ValueError when ``main`` is no coroutine.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("pyepoll.aio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
