"""asyncio on pyepoll: ``pyepoll.aio.run(main())``, or ``new_event_loop`` as the loop factory.

The loop is a subclass of :class:`asyncio.SelectorEventLoop` with the same semantics. What runs for each
callback, timer, event and packet is C; this file has what runs once for a connection or a loop.
docs/asyncio.md tells how the loop differs from asyncio's own.
"""

import asyncio
import asyncio.format_helpers
import asyncio.log
import asyncio.sslproto
import asyncio.trsock
import contextlib
import contextvars
import os
import selectors
import socket
import sys
import warnings
import weakref
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ._core import refuse_to_copy
from ._datagram import DatagramTransport
from ._epoll import _load_aio
from ._loop_selector import LoopSelector
from ._loop_stats import LoopStats
from ._pipes import reading_type, writing_type
from ._processes import has_default_watcher, transport_type, watch_process
from ._sock_calls import SockCalls, stop_watching
from ._tls import SSLProtocol, share_buffer
from ._watch import watch

if TYPE_CHECKING:
    import ssl  # Not every Python has it.

__all__ = [
    "DatagramTransport",
    "EventLoop",
    "LoopSelector",
    "LoopStats",
    "SocketTransport",
    "enable_stats",
    "install",
    "new_event_loop",
    "run",
    "stats",
    "watch",
]

T = TypeVar("T")

watch.__module__ = DatagramTransport.__module__ = LoopSelector.__module__ = LoopStats.__module__ = __name__

_aio: Any = SimpleNamespace(**_load_aio())
_sslproto: Any = asyncio.sslproto
_format_callback: Any = asyncio.format_helpers._format_callback_source


if TYPE_CHECKING:

    class SocketTransport(asyncio.Transport):
        """The transport of a stream socket. The loop makes it."""

        max_size: int
        """The most that one read receives, in bytes; for a BufferedProtocol, its buffer says that."""

        def __init__(
            self,
            loop: asyncio.AbstractEventLoop,
            sock: socket.socket,
            protocol: asyncio.BaseProtocol,
            waiter: asyncio.Future[None] | None = None,
            extra: dict[str, Any] | None = None,
            server: Any = None,
            context: contextvars.Context | None = None,
        ) -> None: ...
else:
    SocketTransport = _aio.SocketTransport


class TransportSocket(asyncio.trsock.TransportSocket):
    """The socket of a transport, as ``get_extra_info("socket")`` returns it.

    Data that the transport has gathered is sent before the fd is given away, or the socket changed.
    """

    __slots__ = ("_transport",)

    def __init__(self, sock: socket.socket, transport: "weakref.ref[Any]") -> None:
        super().__init__(sock)
        self._transport = transport

    def _flush(self) -> None:
        transport = self._transport()
        if transport is not None:
            transport._flush()

    def fileno(self) -> int:
        self._flush()
        return super().fileno()

    def dup(self) -> socket.socket:
        self._flush()
        return super().dup()

    def shutdown(self, how: int) -> None:
        self._flush()
        super().shutdown(how)

    def setsockopt(self, *args: Any, **kwargs: Any) -> None:
        self._flush()
        super().setsockopt(*args, **kwargs)


_aio._use_sockets(socket.socket, TransportSocket)


_getaddrinfo: Any = socket.getaddrinfo
_AI_NUMERICHOST = int(socket.AI_NUMERICHOST)  # Or-ing the enum would remove unknown flags of the caller.


def _needs_no_resolver(host: object, port: object) -> bool:
    """Return whether host is none or an address with a scope, and port a number: this asks no server."""
    numeric = type(port) is int or (type(port) is str and port.isdecimal() and port.isascii())
    return numeric and (host is None or (type(host) is str and "%" in host))


class EventLoop(_aio._LoopBase, SockCalls):  # type: ignore[misc]
    """An event loop on pyepoll.

    selector: any :class:`selectors.BaseSelector`; a new :class:`LoopSelector` if it is None. The loop closes
    it.
    gather_writes: whether stream transports send what is written during a turn of the loop at its end, with
    one system call each; False: in write(), as asyncio does. In debug mode data is always sent in write().
    """

    # What asyncio's classes and __init__() set, but for the names that are members in C.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_current_handle",
        "_exception_handler",
        "_old_agen_hooks",
        "_sendfiles",
        "_unix_server_sockets",
        "_watcher",
        "slow_callback_duration",
    )

    # Otherwise it would be the interpreter's, which does not tell C that a hook may be replaced there.
    __dict__ = _aio._LoopBase.__dict__["__dict__"]

    __reduce_ex__ = refuse_to_copy

    def __init__(self, selector: selectors.BaseSelector | None = None, *, gather_writes: bool = True) -> None:
        self._pending_writes = _aio.PendingWrites(gather_writes)
        self._sendfiles: set[int] = set()
        super().__init__(LoopSelector() if selector is None else selector)
        self._ready = _aio.ReadyQueue()

    def _make_self_pipe(self) -> None:
        super()._make_self_pipe()
        self._make_wake_event()

    def _close_self_pipe(self) -> None:
        self._wake_event = None
        super()._close_self_pipe()

    def set_debug(self, enabled: bool) -> None:
        """Enable or disable asyncio's debug mode, in which data is sent in write()."""
        if enabled:
            self._pending_writes.stop()
        super().set_debug(enabled)

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        """Return :func:`socket.getaddrinfo`'s result: at once for numeric ones, else from a thread.

        Raises :exc:`socket.gaierror`, a subclass of OSError, as socket.getaddrinfo.
        """
        found: Any = self._find_addresses(host, port, family, type, proto, flags)
        if found is None and _needs_no_resolver(host, port):
            with contextlib.suppress(socket.gaierror):
                found = _getaddrinfo(host, port, family, type, proto, flags | _AI_NUMERICHOST)
        if found is None or found is NotImplemented:
            options = {"family": family, "type": type, "proto": proto, "flags": flags}
            return await super().getaddrinfo(host, port, **options)
        addresses: list[tuple[Any, ...]] = found
        return addresses

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a TCP server; see :meth:`asyncio.loop.create_connection`."""
        # To a numeric address, and with no option: the steps of asyncio's method, less coroutines.
        opened = None if options else self._open_connection(host, port)
        if opened is None:
            result: Any = await super().create_connection(protocol_factory, host, port, **options)
            return result  # type: ignore[no-any-return]
        sock, fd, connected, handle = opened
        try:
            if connected is not None:
                try:
                    await connected
                finally:
                    if handle is not None:
                        stop_watching(self, handle, sock, fd, writing=True)
            own: dict[str, Any] = {}
            if sys.version_info >= (3, 15):
                own["context"] = contextvars.copy_context()
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_socket_transport(sock, protocol, waiter, **own)
        except:
            sock.close()
            raise
        finally:
            del opened, connected  # Its exception leads here: it would be a cycle.
        try:
            await waiter
        except:
            transport.close()
            raise
        return transport, protocol

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: contextvars.Context | None = None,
    ) -> SocketTransport:
        if sys.version_info >= (3, 12):
            self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return SocketTransport(self, sock, protocol, waiter, extra, server, context)

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

    def _make_read_pipe_transport(
        self, pipe: Any, protocol: asyncio.BaseProtocol, waiter: Any = None, extra: Any = None
    ) -> asyncio.ReadTransport:
        transport: asyncio.ReadTransport = reading_type()(self, pipe, protocol, waiter, extra)
        return transport

    def _make_write_pipe_transport(
        self, pipe: Any, protocol: asyncio.BaseProtocol, waiter: Any = None, extra: Any = None
    ) -> asyncio.WriteTransport:
        transport: asyncio.WriteTransport = writing_type()(self, pipe, protocol, waiter, extra)
        return transport

    if sys.version_info < (3, 14):

        async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> asyncio.SubprocessTransport:
            transport: Any
            if not has_default_watcher():
                transport = await super()._make_subprocess_transport(*args, **kwargs)
                return transport  # type: ignore[no-any-return]
            waiter = self.create_future()
            transport = transport_type()(self, *args, waiter=waiter, **kwargs)
            watch_process(self, transport)
            try:
                await waiter
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                transport.close()
                await transport._wait()
                raise
            return transport  # type: ignore[no-any-return]

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
        context: contextvars.Context | None = None,
    ) -> asyncio.Transport:
        if sys.version_info >= (3, 12):
            self._ensure_fd_no_transport(rawsock)  # type: ignore[attr-defined]
        tls = SSLProtocol(
            *(self, protocol, sslcontext, waiter, server_side, server_hostname),
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        SocketTransport(self, rawsock, tls, None, extra, server, context)
        transport: asyncio.Transport = tls._app_transport
        return transport

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext",
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        def hand_over() -> None:
            tls: Any = transport.get_protocol()
            share_buffer(tls, self)
            # The peer's first message may have come with the data before it (fixed in CPython 3.14).
            if server_side and isinstance(protocol, asyncio.StreamReaderProtocol):
                early = getattr(getattr(protocol, "_stream_reader", None), "_buffer", None)
                if early and isinstance(tls, _sslproto.SSLProtocol):
                    tls._incoming.write(early)
                    early.clear()

        if getattr(transport, "_start_tls_compatible", False):  # Others are refused below.
            self.call_soon(hand_over)  # Before the handshake, which is the next callback.
        return await super().start_tls(
            *(transport, protocol, sslcontext),
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file over a transport; see :meth:`asyncio.loop.sendfile`.

        Raises RuntimeError while another call sends a file over this transport: the two would change its
        protocol and its reading in turn.
        """
        if id(transport) in self._sendfiles:
            raise RuntimeError("sendfile is already in progress on this transport")
        self._sendfiles.add(id(transport))
        try:
            return await super().sendfile(transport, file, offset, count, fallback=fallback)
        finally:
            self._sendfiles.discard(id(transport))

    async def _sendfile_native(self, transp: Any, file: IO[bytes], offset: int, count: int | None) -> int:
        """As asyncio's; but when the transport is aborted, sending ends before the socket is closed."""
        transports: Any = self._transports
        del transports[transp._sock_fd]
        resume_reading = transp.is_reading()
        transp.pause_reading()
        try:
            await transp._make_empty_waiter()
            sending = transp._sendfile = self.create_task(
                self.sock_sendfile(transp._sock, file, offset, count, fallback=False)
            )
            try:
                sent: int = await sending
                return sent
            except asyncio.CancelledError:
                if not transp._conn_lost or _is_cancelling():
                    raise
                raise ConnectionError("Connection is closed") from None
        finally:
            transp._sendfile = None
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()
            if not transp._conn_lost:
                transports[transp._sock_fd] = transp


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
)
_aio._learn_loop(EventLoop, asyncio.SelectorEventLoop, LoopSelector, _report_error)


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _flush_before_fork() -> None:
    """Send what a child would otherwise have a copy of, and might send again.

    The rest of the turn gathers nothing: a child that writes a reply may end in os._exit().
    """
    pending = getattr(asyncio._get_running_loop(), "_pending_writes", None)
    if isinstance(pending, _aio.PendingWrites):
        pending.stop()
        pending.flush()


os.register_at_fork(before=_flush_before_fork)


def new_event_loop(*, gather_writes: bool = True) -> EventLoop:
    """Return a new :class:`EventLoop`.

    gather_writes: see :class:`EventLoop`. Raises OSError: EMFILE or ENFILE when no fd is left.
    """
    return EventLoop(gather_writes=gather_writes)


def _loop_of_ours(loop: asyncio.AbstractEventLoop | None) -> Any:
    if loop is None:
        loop = asyncio.get_running_loop()
    if not isinstance(loop, EventLoop):
        raise TypeError(f"only loops of pyepoll.aio have stats, not {type(loop).__qualname__}")
    return loop


def stats(loop: asyncio.AbstractEventLoop | None = None) -> LoopStats:
    """Return the counters of a loop, or of the running one if it is None. Any thread may ask for them.

    Raises TypeError if the loop is not an :class:`EventLoop`; RuntimeError if it is None and no loop is
    running.
    """
    return LoopStats._make(_loop_of_ours(loop)._stats())


def enable_stats(loop: asyncio.AbstractEventLoop | None = None, enabled: bool = True) -> None:
    """Count slow callbacks and idle time from the loop's next turn on, or stop if ``enabled`` is false.

    loop: the running loop if it is None. The clock is then read after each callback and twice for each wait;
    the other counters need no clock and are always on. Any thread may call it. Raises TypeError if the loop
    is not an :class:`EventLoop`; RuntimeError if it is None and no loop is running. While it is enabled, a
    turn raises TypeError if ``loop.slow_callback_duration`` is not a number.
    """
    _loop_of_ours(loop)._enable_stats(enabled)


_FACTORY = "pass pyepoll.aio.new_event_loop as the loop factory, or call pyepoll.aio.run()"


def install() -> None:
    """Let :func:`asyncio.run` and ``asyncio.new_event_loop()`` make loops of pyepoll's in this process.

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
