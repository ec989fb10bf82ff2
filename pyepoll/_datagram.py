"""The transport of datagram sockets: all but the receiving and sending, which is C (csrc/aio/datagram)."""

import asyncio
import asyncio.selector_events
import asyncio.trsock
import collections
import contextvars
import socket
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._core import refuse_to_copy
from ._epoll import _load_aio

_Base: Any = _load_aio()["DatagramTransport"]

_stock: Any = asyncio.selector_events
"""Its logger is used through this name, as a program may replace it."""

Address = Any
"""Whatever the family of the socket has as an address."""

BURST = 16
"""So many datagrams are received, or sent from the queue, for one event; also in datagram/receive.c."""

WARN_AFTER = 5
"""asyncio warns from the fifth call of sendto() after the connection was lost."""


class DatagramTransport(_Base):  # type: ignore[misc]
    """asyncio's transport of a datagram socket, with ``sendto()`` and the reading in C.

    The loop makes it. C handles open IPv4 and IPv6 sockets with nothing in the queue; the methods here do
    what is left. The callbacks run in the context that was current when the transport was made.
    """

    _header_size = 8
    """The size of the queue has so many bytes more for each datagram, as asyncio's (whose name it is)."""

    if TYPE_CHECKING:  # In C, or inherited.
        _loop: Any
        _sock: Any
        _protocol: Any
        _closing: bool
        _conn_lost: int
        _extra: dict[str, Any]
        max_size: int

        def sendto(self, data: bytes | bytearray | memoryview, addr: Address = None) -> None: ...

    def __init__(
        self,
        loop: Any,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Address = None,
        waiter: "asyncio.Future[None] | None" = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(extra, loop)
        self.max_size = 256 * 1024
        self._buffer: collections.deque[tuple[bytes, Address]] = collections.deque()
        self._context = contextvars.copy_context()
        self._server = None
        self._add_names(sock)
        self._address = address
        self._family = sock.family if type(sock) is socket.socket else 0  # 0 is not for C.
        self._connected = self._extra["peername"] is not None  # A Unix socket may have an unnamed peer: "".
        self._sock = sock
        self._sock_fd = sock.fileno()
        self._protocol = protocol
        loop._transports[self._sock_fd] = self
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start_reading)  # Only when connection_made() has been called.
        if waiter is not None:
            loop.call_soon(_wake, waiter)

    def _add_names(self, sock: socket.socket) -> None:
        self._extra["socket"] = asyncio.trsock.TransportSocket(sock)
        names: tuple[tuple[str, Callable[[], Address]], ...] = (
            ("sockname", sock.getsockname),
            ("peername", sock.getpeername),
        )
        for name, call in names:
            if name == "sockname" or name not in self._extra:
                try:
                    self._extra[name] = call()
                except OSError:
                    self._extra[name] = None

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._sock is None:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if self._sock is not None:
            writing = "polling" if self._buffer else "idle"
            info.append("read=polling" if self.is_reading() else "read=idle")
            info.append(f"write=<{writing}, bufsize={self._buffer_size}>")
        return f"<{' '.join(info)}>"

    __reduce_ex__ = refuse_to_copy

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._sock.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_write_buffer_size(self) -> int:
        size: int = self._buffer_size
        return size

    def is_closing(self) -> bool:
        closing: bool = self._closing
        return closing

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if self.is_reading():
            self._paused = True
            self._loop._remove_reader(self._sock_fd)
            if self._loop.get_debug():
                _stock.logger.debug("%r pauses reading", self)

    def resume_reading(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._start_reading()
            if self._loop.get_debug():
                _stock.logger.debug("%r resumes reading", self)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop._remove_reader(self._sock_fd)
            if not self._buffer:
                self._lose(None)

    def abort(self) -> None:
        self._force_close(None)

    def _start_reading(self) -> None:
        if self.is_reading():
            self._in_context(self._loop._add_reader, self._sock_fd, self._read_ready)

    def _in_context(self, method: Callable[..., Any], *args: Any) -> None:
        """Call a method that makes a handle, which copies the context of its caller."""
        self._context.copy().run(method, *args)

    # What C leaves to these methods.

    def _read_slowly(self) -> None:
        """Receive from a socket that is not for C."""
        for _ in range(BURST):
            if not self.is_reading() or self._conn_lost:
                return
            try:
                data, address = self._sock.recvfrom(self.max_size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
                return
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fatal_error(error, "Fatal read error on datagram transport")
                return
            self._protocol.datagram_received(data, address)
            if not data:
                return  # The end of a SOCK_SEQPACKET looks so, at each call.

    def _send_slowly(self, data: bytes | bytearray | memoryview, addr: Address = None) -> None:
        """All of sendto()."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._address:
            if addr not in (None, self._address):
                raise ValueError(f"Invalid address: must be None or {self._address}")
            addr = self._address
        if self._conn_lost and (self._address or self._sock is None):
            if self._conn_lost >= WARN_AFTER:
                _stock.logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
        elif self._buffer or not self._send_now(data, addr):
            self._keep(data, addr)

    def _send_now(self, data: bytes | bytearray | memoryview, addr: Address) -> bool:
        """Send; return whether the datagram is done with."""
        try:
            if self._connected:
                self._sock.send(data)
            else:
                self._sock.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._protocol.error_received(error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal write error on datagram transport")
        return True

    def _keep(self, data: bytes | bytearray | memoryview, addr: Address) -> None:
        """Add a copy to the queue."""
        if not self._buffer:
            self._in_context(self._loop._add_writer, self._sock_fd, self._sendto_ready)
        copy = bytes(data)
        self._buffer.append((copy, addr))
        self._buffer_size += len(copy) + self._header_size
        self._maybe_pause_protocol()

    def _sendto_ready(self) -> None:
        for _ in range(BURST):
            if not self._buffer:
                break
            data, addr = self._buffer.popleft()
            self._buffer_size -= len(data) + self._header_size
            if not self._send_now(data, addr):
                self._buffer.appendleft((data, addr))
                self._buffer_size += len(data) + self._header_size
                break
        self._maybe_resume_protocol()  # May append to the queue, or close.
        if not self._buffer and self._sock is not None:
            self._loop._remove_writer(self._sock_fd)
            if self._closing and not self._conn_lost:
                self._conn_lost += 1
                self._call_connection_lost(None)

    def _failed(self, error: BaseException, message: str) -> None:
        try:
            raise error
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as raised:
            self._fatal_error(raised, message)
        finally:
            del error  # The traceback leads here: it would be a cycle.

    def _fatal_error(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        """Close because of an error; it is being handled."""
        if isinstance(error, OSError):
            if self._loop.get_debug():
                _stock.logger.debug("%r: %s", self, message, exc_info=True)
        else:
            self._loop.call_exception_handler(
                {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
            )
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._conn_lost:
            return
        self._buffer.clear()
        self._buffer_size = 0
        if not self._closing:
            self._closing = True
            self._loop._remove_reader(self._sock_fd)
        self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        self._conn_lost += 1
        self._loop._remove_writer(self._sock_fd)
        self._in_context(self._loop.call_soon, self._call_connection_lost, error)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()
            self._sock = None
            self._protocol = None
            self._loop = None


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.cancelled():
        waiter.set_result(None)
