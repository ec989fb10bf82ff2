"""What the loads ask, and the servers answer. A server imports no more than this."""

__all__ = ["BODY", "MESSAGE", "REQUEST"]

MESSAGE = "x" * 64
"""What an echo server is sent."""

REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"Hello, world!"
"""What is in the answer to each request."""
