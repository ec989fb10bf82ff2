"""A conversation over a websocket, with a client that waits in plain blocking calls."""

from typing import Any

import pytest
from content import body
from serving import DEADLINE


def converse(port: int, seed: int) -> None:
    """Send texts and bytes, small and large, and compare the replies; then close in good order."""
    client: Any = pytest.importorskip("websockets.sync.client")
    with client.connect(
        f"ws://127.0.0.1:{port}/", max_size=None, open_timeout=DEADLINE, proxy=None
    ) as connection:
        for size in (1, 125, 126, 65_535, 65_536, 700_000):
            sent = body(seed, size)
            connection.send(sent)
            assert connection.recv(DEADLINE) == sent
            connection.send(sent.decode())
            assert connection.recv(DEADLINE) == sent.decode()
