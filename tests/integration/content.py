"""Texts shared by the servers under test and their clients."""

STREAM = [b"%06d" % number * 1000 for number in range(300)]
"""The pieces that /stream sends, 1.8 MB."""


def body(seed: int, size: int) -> bytes:
    """A body that no other seed has, with a different content in each part."""
    lines = b"".join(b"%063d\n" % (seed * 10**9 + number) for number in range(size // 64 + 1))
    return lines[:size]
