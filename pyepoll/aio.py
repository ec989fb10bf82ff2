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
import contextvars
import selectors
import socket
import sys
import warnings
import weakref
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ._core import refuse_to_copy
from ._datagram import DatagramTransport
from ._epoll import _load_aio
from ._loop_selector import LoopSelector
from ._selector import EpollSelector
from ._tls import SSLProtocol
from ._watch import watch

if TYPE_CHECKING:
    import ssl  # Not every Python has it.

__all__ = [
    "DatagramTransport",
    "EventLoop",
    "LoopSelector",
    "SocketTransport",
    "install",
    "new_event_loop",
    "run",
    "watch",
]

T = TypeVar("T")

watch.__module__ = DatagramTransport.__module__ = __name__

_aio: Any = SimpleNamespace(**_load_aio())
_stock: Any = asyncio.selector_events
"""Private parts of asyncio's are used through these names, and listed in docs/asyncio.md."""
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


class EventLoop(_aio._LoopBase, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """An event loop on pyepoll.

    selector: any :class:`selectors.BaseSelector`; a new :class:`LoopSelector` if it is None. The loop closes
    it.
    """

    # What asyncio's classes set, but for the names that are members in C.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_current_handle",
        "_default_executor",
        "_exception_handler",
        "_executor_shutdown_called",
        "_old_agen_hooks",
        "_transports",
        "_unix_server_sockets",
        "_watcher",
        "slow_callback_duration",
    )

    __reduce_ex__ = refuse_to_copy

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(LoopSelector() if selector is None else selector)
        self._ready = _aio.ReadyQueue()

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

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramTransport:
        if sys.version_info >= (3, 12):
            self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return DatagramTransport(self, sock, protocol, address, waiter, extra)

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
        tls = SSLProtocol(
            *(self, protocol, sslcontext, waiter, server_side, server_hostname),
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        SocketTransport(self, rawsock, tls, None, extra, server, **context)
        transport: asyncio.Transport = tls._app_transport
        return transport


def _report_error(handle: Any, error: BaseException) -> None:
    try:
        raise error  # A handler may call sys.exc_info().
    except BaseException as raised:
        source = _format_callback(handle._callback, handle._args)
        context = {"message": f"Exception in callback {source}", "exception": raised, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        handle._loop.call_exception_handler(context)
    finally:
        del error  # The traceback leads here: it would be a cycle.


_aio._learn_fds(
    EventLoop,
    LoopSelector,
    socket.socket,
    weakref.WeakValueDictionary,
    asyncio.events,
)
_aio._learn_loop(EventLoop, asyncio.SelectorEventLoop, EpollSelector, _report_error)


def new_event_loop() -> EventLoop:
    """Return a new :class:`EventLoop`.

    Raises OSError: EMFILE or ENFILE when no fd is left.
    """
    return EventLoop()


_FACTORY = "pass pyepoll.aio.new_event_loop as the loop factory, or call pyepoll.aio.run()"


def install() -> None:
    """Let :func:`asyncio.run` and :func:`asyncio.new_event_loop` make loops of pyepoll's in this process.

    For programs that accept no loop factory: it sets asyncio's event loop policy. Loops that exist already
    stay as they are. Raises RuntimeError on CPython 3.16, which has no policies; on 3.14 and 3.15 it issues a
    DeprecationWarning.
    """
    if sys.version_info >= (3, 16):
        raise RuntimeError(f"CPython 3.16 has no event loop policies: {_FACTORY}")
    if sys.version_info >= (3, 14):
        message = f"event loop policies are removed in CPython 3.16: {_FACTORY}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asyncio's own, which would name this file.

        base = asyncio.DefaultEventLoopPolicy
        policy = type("EventLoopPolicy", (base,), {"new_event_loop": lambda self: new_event_loop()})
        asyncio.set_event_loop_policy(policy())


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run a coroutine in a new :class:`EventLoop` as :func:`asyncio.run` does, and return its result.

    debug: asyncio's debug mode; None leaves it to ``PYTHONASYNCIODEBUG``. Raises what ``main`` raises;
    RuntimeError when an event loop is running in this thread; ValueError when ``main`` is no coroutine.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("pyepoll.aio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)
