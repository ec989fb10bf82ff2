"""asyncio's TLS, with less memory for each connection and fewer steps for each message."""

import asyncio.sslproto
from typing import Any

_sslproto: Any = asyncio.sslproto

RECORD = 16 * 1024
"""As much as one record of TLS has: SSL_read() returns no more."""

SHARED = 256 * 1024
"""As much as asyncio receives at a time."""


class SSLProtocol(_sslproto.SSLProtocol):  # type: ignore[misc]
    """asyncio's protocol between a transport and TLS, for the transports of one loop.

    All share one buffer to receive into; asyncio has one of 256 KiB for each. It is free again when
    buffer_updated() has added its bytes to those that wait to be decrypted.
    """

    max_size = RECORD
    _handshake_start_time: float | None

    def __init__(self, loop: Any, *args: Any, **options: Any) -> None:
        super().__init__(loop, *args, **options)
        self._ssl_buffer, self._ssl_buffer_view = _shared_buffer(loop)

    def _start_handshake(self) -> None:
        super()._start_handshake()
        # Debug mode, in which asyncio logs how long it took, may be enabled meanwhile.
        if self._handshake_start_time is None:
            self._handshake_start_time = self._loop.time()

    def _do_read__copied(self) -> None:
        """Pass on what can be decrypted now.

        asyncio reads until there is an exception, which costs more than the decryption of a short message.
        """
        read, pending, incoming = self._sslobj.read, self._sslobj.pending, self._incoming
        chunks = []
        ended = False
        try:
            while not ended:
                chunk = read(RECORD)
                ended = not chunk  # close_notify
                if not ended:
                    chunks.append(chunk)
                    if not incoming.pending and not pending():
                        break
        except _sslproto.SSLAgainErrors:
            pass
        if chunks:
            self._app_protocol.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if ended:
            self._call_eof_received()
            self._start_shutdown()


def share_buffer(protocol: Any, loop: Any) -> None:
    """Make one of ours out of a protocol that asyncio has just made, as start_tls() does."""
    if type(protocol) is _sslproto.SSLProtocol:
        protocol.__class__ = SSLProtocol
        protocol._ssl_buffer, protocol._ssl_buffer_view = _shared_buffer(loop)


def _shared_buffer(loop: Any) -> tuple[bytearray, memoryview]:
    try:
        shared: tuple[bytearray, memoryview] = loop._tls_buffer
    except AttributeError:
        buffer = bytearray(SHARED)
        shared = loop._tls_buffer = buffer, memoryview(buffer)
    return shared
