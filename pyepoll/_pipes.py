"""The transports of pipes: asyncio's own, with the reading and writing in C (csrc/aio/pipe).

Each calls its protocol in a copy of the context in which it was made, not of that of the task that resumes or
closes it, or writes more than the pipe takes.
"""

import asyncio
import asyncio.unix_events
import os
import stat
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ._epoll import _load_aio

_aio: Any = SimpleNamespace(**_load_aio())
_stock: Any = asyncio.unix_events
_Reading: Any = _stock._UnixReadPipeTransport
_Writing: Any = _stock._UnixWritePipeTransport
_read_ready, _write = _Reading._read_ready, _Writing.write


class ReadPipeTransport(_aio._PipeBase, _Reading):  # type: ignore[misc]
    """asyncio's transport of a pipe to read from, with the reading in C."""

    __slots__ = ("_closing", "_context", "_fileno", "_protocol", "max_size")

    if TYPE_CHECKING:  # Inherited.
        _closing: bool
        _fileno: int
        _loop: Any
        _pipe: Any
        _protocol: Any
        max_size: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.max_size = _Reading.max_size
        self._context: Context = copy_context()
        super().__init__(*args, **kwargs)
        # No more is in a pipe by default; but a socket or a device may have a message that is longer.
        if stat.S_ISFIFO(os.fstat(self._fileno).st_mode):
            self.max_size = min(self.max_size, 64 * 1024)

    def resume_reading(self) -> None:
        self._context.copy().run(super().resume_reading)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        self._context.copy().run(super()._call_connection_lost, exc)

    def _read_slowly(self) -> None:
        """Read with an unusual fd, or a ``max_size`` larger than that of a pipe."""
        super()._read_ready()

    def _failed(self, error: BaseException) -> None:
        try:
            raise error  # An exception handler may call sys.exc_info(), as debug mode does.
        except BaseException as raised:
            self._fatal_error(raised, "Fatal read error on pipe transport")
        finally:
            del error  # The traceback leads here: it would be a cycle.

    def _end_of_file(self) -> None:
        if self._loop.get_debug():
            _stock.logger.info("%r was closed by peer", self)
        self._closing = True
        self._loop._remove_reader(self._fileno)
        self._loop.call_soon(self._protocol.eof_received)
        self._loop.call_soon(self._call_connection_lost, None)


class WritePipeTransport(_aio._PipeBase, _Writing):  # type: ignore[misc]
    """asyncio's transport of a pipe to write to, with ``write()`` in C."""

    __slots__ = ("_buffer", "_closing", "_conn_lost", "_context", "_fileno")

    if TYPE_CHECKING:  # Inherited.
        _buffer: bytearray
        _closing: bool
        _conn_lost: int
        _fileno: int
        _loop: Any

        def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._context: Context = copy_context()
        super().__init__(*args, **kwargs)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        self._context.copy().run(super()._call_connection_lost, exc)

    def _write_slowly(self, data: bytes | bytearray | memoryview) -> None:
        """Write to a transport that is closing, or has data in its buffer."""
        super().write(data)

    def _failed(self, error: BaseException) -> None:
        self._conn_lost += 1
        try:
            raise error
        except BaseException as raised:
            self._fatal_error(raised, "Fatal write error on pipe transport")
        finally:
            del error

    def _keep(self, rest: bytearray) -> None:
        """Write the rest when the pipe is writable."""
        self._context.copy().run(self._loop._add_writer, self._fileno, self._write_ready)
        if self._buffer:  # A signal handler, or another thread, has written since the system call.
            self._buffer += rest
        else:
            self._buffer = rest  # This needs no memory.
        self._maybe_pause_protocol()


_aio._learn_pipes(ReadPipeTransport, WritePipeTransport)


def reading_type() -> Any:
    """Return the class for a pipe to read from: asyncio's, if a program has replaced that or its method."""
    current: Any = _stock._UnixReadPipeTransport
    return ReadPipeTransport if current is _Reading and current._read_ready is _read_ready else current


def writing_type() -> Any:
    """Return the class for a pipe to write to, in the same way."""
    current: Any = _stock._UnixWritePipeTransport
    return WritePipeTransport if current is _Writing and current.write is _write else current
