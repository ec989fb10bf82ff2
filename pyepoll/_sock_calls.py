"""The loop's methods for sockets of the program, ``sock_recv`` and the like, and for its listeners."""

import asyncio
import asyncio.constants
import asyncio.log
import asyncio.trsock
import errno
import socket
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ._epoll import _load_aio

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_aio = _load_aio()
_recv_into_ready: Any = _aio["_recv_into_ready"]
_recv_ready: Any = _aio["_recv_ready"]
_try_accept: Any = _aio["_try_accept"]
_try_connect: Any = _aio["_try_connect"]
_try_recv: Any = _aio["_try_recv"]
_try_recv_into: Any = _aio["_try_recv_into"]
_try_send: Any = _aio["_try_send"]

_ensure_resolved: Any = asyncio.BaseEventLoop._ensure_resolved  # type: ignore[attr-defined]
_Socket = socket.socket

_ACCEPTS_PER_TURN = 101
"""As many as asyncio makes of its default backlog, in its newest versions."""
_ACCEPT_RETRY_DELAY: float = asyncio.constants.ACCEPT_RETRY_DELAY
_SERVING: tuple[Any, ...] = (
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT,
    asyncio.constants.SSL_SHUTDOWN_TIMEOUT,
    *([None] if sys.version_info >= (3, 15) else []),
)
"""The last arguments of _accept_connection(), where they are not given."""


def _count_accepts() -> int:
    """Return how often asyncio accepts with a backlog of 0: once, or not at all before a fix in 3.14."""
    count = 0

    def accept() -> None:
        nonlocal count
        count += 1
        raise ConnectionAbortedError

    accept_connection: Any = asyncio.SelectorEventLoop._accept_connection  # type: ignore[attr-defined]
    accept_connection(None, None, SimpleNamespace(accept=accept), backlog=0)
    return count


_ACCEPTS_BEYOND_BACKLOG = _count_accepts()


def stop_watching(loop: Any, handle: Any, sock: socket.socket, fd: int, *, writing: bool = False) -> None:
    """Remove the reader or writer of a sock_recv() or the like; its socket may have been closed.

    asyncio removes it in a callback: an error there replaces neither the call's result nor its exception.
    """
    if handle is not None and handle.cancelled():
        return  # Another reader or writer has replaced it.
    file = sock if sock.fileno() >= 0 else fd
    try:
        try:
            (loop.remove_writer if writing else loop.remove_reader)(file)
        except RuntimeError:  # A transport has been made of the socket, and has added nothing yet.
            if handle is not None:
                (loop._remove_writer if writing else loop._remove_reader)(file)
    except OSError:
        pass  # EBADF


class SockCalls(asyncio.SelectorEventLoop):
    """The methods: in C for a plain socket.socket; asyncio's own for other sockets, and in debug mode."""

    __slots__ = ()

    if TYPE_CHECKING:
        _debug: bool

        def _remove_reader(self, fd: int) -> bool: ...

    async def _wait_ready(self, sock: socket.socket, callback: Any, *args: Any, writing: bool = False) -> Any:
        """Return what callback(future, sock, ``*args``) sets as the future's result when sock is ready."""
        future = self.create_future()
        fd = sock.fileno()
        add: Any = self._add_checked_writer if writing else self._add_checked_reader  # type: ignore[attr-defined]
        # The socket, not its fd: then the selector needs no system call for a reader that is added again.
        handle = add(sock, callback, future, sock, *args)
        try:
            return await future
        finally:
            stop_watching(self, handle, sock, fd, writing=writing)
            del future  # Its exception leads here: it would be a cycle.

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to n bytes from a non-blocking socket; see :meth:`asyncio.loop.sock_recv`."""
        if type(sock) is not _Socket or self._debug:
            return await super().sock_recv(sock, n)
        data: bytes | None = _try_recv(sock, n)
        if data is not None:
            return data
        # As in _wait_ready(), without a coroutine more.
        future: asyncio.Future[bytes] = self.create_future()
        fd = sock.fileno()
        handle = self._add_checked_reader(sock, _recv_ready, future, sock, n)  # type: ignore[attr-defined]
        try:
            return await future
        finally:
            stop_watching(self, handle, sock, fd)
            del future

    async def sock_recv_into(self, sock: socket.socket, buf: "WriteableBuffer") -> int:
        """Receive into a buffer, and return how many bytes; see :meth:`asyncio.loop.sock_recv_into`."""
        if type(sock) is not _Socket or self._debug:
            return await super().sock_recv_into(sock, buf)
        count: int | None = _try_recv_into(sock, buf)
        if count is not None:
            return count
        received: int = await self._wait_ready(sock, _recv_into_ready, buf)
        return received

    async def sock_sendall(self, sock: socket.socket, data: "ReadableBuffer") -> None:
        """Send all of data to a non-blocking socket; see :meth:`asyncio.loop.sock_sendall`."""
        if type(sock) is not _Socket or type(data) is not bytes or self._debug:
            return await super().sock_sendall(sock, data)
        sent = _try_send(sock, data)
        if sent < len(data):
            send: Any = self._sock_sendall  # type: ignore[attr-defined]
            await self._wait_ready(sock, send, memoryview(data), [sent], writing=True)
        return None

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection of a non-blocking listener; see :meth:`asyncio.loop.sock_accept`."""
        accepted: Any = NotImplemented if self._debug else _try_accept(sock)
        if accepted is NotImplemented:
            return await super().sock_accept(sock)
        if accepted is None:
            accepted = await self._wait_ready(sock, self._sock_accept_ready)
        connection: tuple[socket.socket, Any] = accepted
        return connection

    def _sock_accept_ready(self, fut: "asyncio.Future[Any]", sock: socket.socket) -> None:
        if fut.done():
            return
        try:
            accepted = _next_connection(sock)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            fut.set_exception(error)
        else:
            if accepted is not None:
                fut.set_result(accepted)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket; see :meth:`asyncio.loop.sock_connect`."""
        connected: Any = NotImplemented
        if not self._debug and getattr(self._ensure_resolved, "__func__", None) is _ensure_resolved:  # type: ignore[attr-defined]
            connected = _try_connect(sock, address)
        if connected is NotImplemented:
            await super().sock_connect(sock, address)
        elif not connected:
            check: Any = self._sock_connect_cb  # type: ignore[attr-defined]
            await self._wait_ready(sock, check, address, writing=True)

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *options: Any,
    ) -> None:
        options = (*options, *_SERVING[len(options) :])
        timeouts, context = options[:2], options[-1] if len(options) > 2 else None
        # As asyncio's method, except that a lack of fds is reported once, and not once for each connection
        # that could be accepted, and that a busy listener accepts at most _ACCEPTS_PER_TURN in one turn.
        limit = min(max(backlog + _ACCEPTS_BEYOND_BACKLOG, 1), _ACCEPTS_PER_TURN)
        try:
            if sslcontext or not self._serve_ready(protocol_factory, sock, server, limit, context):  # type: ignore[attr-defined]
                self._accept_with_tasks(limit, protocol_factory, sock, sslcontext, server, timeouts, context)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            self.call_exception_handler(
                {
                    "message": "socket.accept() out of system resource",
                    "exception": error,
                    "socket": asyncio.trsock.TransportSocket(sock),
                }
            )
            self._remove_reader(sock.fileno())
            serve = self._start_serving, protocol_factory, sock, sslcontext, server, backlog, *options  # type: ignore[attr-defined]
            self.call_later(_ACCEPT_RETRY_DELAY, *serve)

    def _accept_with_tasks(
        self,
        limit: int,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any,
        server: Any,
        timeouts: Any,
        context: Any,
    ) -> None:
        """Accept connections as asyncio does: each has a task that waits for its transport."""
        for _ in range(limit):
            try:
                accepted = _next_connection(sock)
            except ConnectionAbortedError:
                continue
            if accepted is None:
                return
            connection, address = accepted
            if self._debug:
                asyncio.log.logger.debug("%r got a new connection from %r: %r", server, address, connection)
            own = {} if context is None else {"context": context.copy()}
            extra = {"peername": address}
            task = self._accept_connection2(  # type: ignore[attr-defined]
                protocol_factory, connection, extra, sslcontext, server, *timeouts, **own
            )
            self.create_task(task, **own)


def _next_connection(sock: socket.socket) -> tuple[socket.socket, Any] | None:
    """Accept a connection of any kind of listener; return None where there is none yet."""
    accepted = _try_accept(sock)
    if accepted is NotImplemented:
        try:
            accepted = sock.accept()
            accepted[0].setblocking(False)
        except (BlockingIOError, InterruptedError):
            return None
    result: tuple[socket.socket, Any] | None = accepted
    return result
