"""The transports of pipes: asyncio's own classes, with the reading and writing in C (csrc/aio/pipe)."""

import asyncio
import asyncio.unix_events
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ._epoll import _load_aio

__all__ = ["ReadPipeTransport", "WritePipeTransport"]

_aio: Any = SimpleNamespace(**_load_aio())
_stock: Any = asyncio.unix_events


class ReadPipeTransport(_aio._PipeBase, _stock._UnixReadPipeTransport):  # type: ignore[misc]
    __slots__ = ("_fileno", "_protocol", "max_size")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.max_size = _stock._UnixReadPipeTransport.max_size
        super().__init__(*args, **kwargs)

    def _read_slowly(self) -> None:
        super()._read_ready()

    def _failed(self, error: BaseException) -> None:
        self._fatal_error(error, "Fatal read error on pipe transport")

    def _end(self) -> None:
        if self._loop.get_debug():
            _stock.logger.info("%r was closed by peer", self)
        self._closing = True
        self._loop._remove_reader(self._fileno)
        self._loop.call_soon(self._protocol.eof_received)
        self._loop.call_soon(self._call_connection_lost, None)


class WritePipeTransport(_aio._PipeBase, _stock._UnixWritePipeTransport):  # type: ignore[misc]
    __slots__ = ("_buffer", "_closing", "_conn_lost", "_fileno")

    def _write_slowly(self, data: Any) -> None:
        super().write(data)

    def _failed(self, error: BaseException) -> None:
        self._conn_lost += 1
        self._fatal_error(error, "Fatal write error on pipe transport")

    def _keep(self, data: bytes) -> None:
        self._loop._add_writer(self._fileno, self._write_ready)
        self._buffer += data
        self._maybe_pause_protocol()


_aio._learn_pipes(ReadPipeTransport, WritePipeTransport)
