"""The requests of the loads and the answers of the servers. A server imports no more than this."""

__all__ = ["BODY", "MESSAGE", "REQUEST"]

MESSAGE = "x" * 64
"""The message to an echo server."""

REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"Hello, world!"
"""The content of the answer to each request."""
